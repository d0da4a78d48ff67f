"""Mails: composing one, and handing it to the configured SMTP server over verified TLS, within a bounded time."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from broker.base.settings import Settings
from broker.base.tls_reasons import explain_certificate_error
from broker.outbound.deadline import AbandonableWork, Deadline

LONGEST_ADDRESS = 254
# SMTP's codes from here on say that trying again changes nothing (RFC 5321 §4.2.1).
_LASTING = 500
_NAMES = AbandonableWork(8)
_FOLDER = Path(__file__).parent / "templates"
_text = Environment(loader=FileSystemLoader(_FOLDER), undefined=StrictUndefined)  # noqa: S701  plain text
_html = Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


class NotSent(Exception):
    """A message was not taken. The text names what went wrong and nothing a foreign server said.

    `for_good`: trying again would change nothing. `whole`: the next message to the same server would fare the same.
    """

    def __init__(self, text: str, *, for_good: bool = False, whole: bool = True) -> None:
        super().__init__(text)
        self.for_good = for_good
        self.whole = whole


@dataclass(frozen=True, slots=True)
class Mail:
    """What is to be said to one address. `id` stays the same however often it is tried."""

    id: str
    to: str
    title: str
    body: str
    path: str
    at: datetime


def address(claimed: str) -> str:
    """An address mail can be sent to, or nothing: plain ASCII, one line, one mailbox, nothing hidden."""
    try:
        found = Address(addr_spec=claimed)
    except (ValueError, IndexError):
        return ""
    harmless = claimed.isascii() and claimed.isprintable() and " " not in claimed and '"' not in claimed
    complete = found.username and "." in found.domain and len(claimed) <= LONGEST_ADDRESS
    return claimed if harmless and complete and found.addr_spec == claimed else ""


def compose(settings: Settings, mail: Mail) -> EmailMessage:
    """The mail as text and as simple HTML, with an id that does not change between tries."""
    base = str(settings.public_url).rstrip("/")
    said = {
        "title": mail.title,
        "body": mail.body,
        "link": f"{base}{mail.path}",
        "choices_link": f"{base}/security/notices",
    }
    message = EmailMessage(policy.SMTP)
    message["From"] = settings.smtp_from
    message["To"] = mail.to
    message["Subject"] = mail.title
    message["Date"] = format_datetime(mail.at)
    message["Message-ID"] = f"<{mail.id}@{settings.public_url.host}>"
    message["Auto-Submitted"] = "auto-generated"
    message["List-Unsubscribe"] = f"<{base}/security/notices>"
    message.set_content(_text.get_template("mail.txt").render(said))
    message.add_alternative(_html.get_template("mail.html").render(said), subtype="html")
    return message


def send(settings: Settings, mail: Mail) -> None:
    """Hand one mail over.

    Raises:
        NotSent: it was not taken.
    """
    if settings.smtp_host is None:
        raise NotSent("No mail server is configured.")
    try:
        with Deadline(settings.smtp_timeout) as deadline, _connected(settings, deadline) as server:
            server.send_message(compose(settings, mail), to_addrs=[mail.to])
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        lasting = codes[0] >= _LASTING
        raise NotSent(f"The mail server refused the recipient ({codes[0]}).", for_good=lasting, whole=False) from error
    except smtplib.SMTPDataError as error:
        lasting = error.smtp_code >= _LASTING
        raise NotSent(
            f"The mail server refused the mail ({error.smtp_code}).", for_good=lasting, whole=False
        ) from error
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"The mail server answered {error.smtp_code} ({type(error).__name__}).") from error
    except ssl.SSLCertVerificationError as error:
        why = explain_certificate_error(error, settings.smtp_host).why
        raise NotSent(f"The mail server's certificate is not trusted: {why}.") from error
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotSent(f"The mail server could not be used ({type(error).__name__}).") from error


@contextlib.contextmanager
def _connected(settings: Settings, deadline: Deadline) -> Iterator[smtplib.SMTP]:
    trusted = ssl.create_default_context(cafile=settings.smtp_ca_file)

    class Client(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:
            line = deadline.connect(deadline.look_up(host, _NAMES), port)
            return trusted.wrap_socket(line, server_hostname=host) if settings.smtp_security == "tls" else line

    # Unless told who we are, it would look up this machine's own name, for however long that takes.
    ourselves = settings.public_url.host or "localhost"
    with Client(settings.smtp_host or "", settings.smtp_port, ourselves, settings.smtp_timeout) as server:
        if settings.smtp_security == "starttls":
            server.starttls(context=trusted)
        if settings.smtp_username is not None and settings.smtp_password is not None:
            server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
        yield server
