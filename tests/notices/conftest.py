"""A real mail server with verified STARTTLS, and the worker's part that tells people, round by round."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from sqlalchemy import select, update

from broker.base.database import clock
from broker.embedded.children import free_port
from broker.models import Delivery, Notice, NoticeAddress, NoticeChannel
from broker.notices import delivery_retries, outbox
from broker.runtime.parts import Parts
from tests.notices.receiver import Receiver
from tests.support.world import Signed, World


class MailServer:
    """What arrives at it is kept; `answer` is what it says to the next mails instead of taking them.

    `login`: the name and password without which it takes nothing.
    """

    def __init__(self, folder: Path, security: str = "starttls", login: tuple[str, str] | None = None) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "mail-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.arrived: list[EmailMessage] = []
        self.answer = ""
        self._lock = threading.Lock()
        self.port = free_port()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        by_security: dict[str, dict[str, Any]] = {
            "starttls": {"tls_context": context, "require_starttls": True},
            # It knows of no TLS but its own STARTTLS.
            "tls": {"ssl_context": context, "auth_require_tls": False},
            "none": {},
        }
        if login is not None:
            by_security[security] |= {"auth_required": True, "authenticator": self._authenticate}
        self._login = login
        self._controller = Controller(
            self, hostname="localhost", port=self.port, server_hostname="localhost", **by_security[security]
        )

    def _authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _way: str, data: Any) -> AuthResult:
        known = (data.login.decode(), data.password.decode()) == self._login
        return AuthResult(success=known, handled=False)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """aiosmtpd's hook."""
        if self.answer:
            return self.answer
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        with self._lock:
            self.arrived.append(message)
        return "250 OK"

    def start(self) -> None:
        """Listen."""
        self._controller.start()

    def stop(self) -> None:
        """Stop listening."""
        self._controller.stop()

    def to(self, address: str) -> list[EmailMessage]:
        """What arrived for one address."""
        with self._lock:
            return [message for message in self.arrived if message["To"] == address]


@pytest.fixture(scope="package")
def mail_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MailServer]:
    """The mail server."""
    server = MailServer(tmp_path_factory.mktemp("mail"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def receiver_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """The receiver of webhooks."""
    server = Receiver(tmp_path_factory.mktemp("receiver"))
    server.start()
    yield server
    server.stop()


class Office:
    """People with addresses, and the postman's rounds at any time."""

    def __init__(self, world: World, server: MailServer, receiver: Receiver) -> None:
        self.world, self.server, self.receiver = world, server, receiver
        changes = {
            "smtp_host": "localhost",
            "smtp_port": server.port,
            "smtp_ca_file": server.ca_file,
            "smtp_from": "Guestkey <guestkey@example.org>",
            # On a busy machine an honest server takes its time; tests of silent ones have bounds of their own.
            "smtp_timeout": 20.0,
            "notice_timeout": 1.0,
            "notice_ca_file": receiver.ca_file,
            "notice_networks": [IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")],
        }
        self.parts: Parts = replace(world.ender, settings=world.settings.model_copy(update=changes))
        self.clear()

    def clear(self) -> None:
        """Forget what other tests left to be told."""
        with self.world.database.transaction() as tx:
            now = clock(tx)
            tx.execute(update(Notice).where(Notice.told_at.is_(None)).values(told_at=now))
            tx.execute(update(Delivery).where(Delivery.state == "waiting").values(state="portal"))
            tx.execute(update(NoticeAddress).values(address=""))
            tx.execute(update(NoticeChannel).values(removed_at=now))
        self.server.answer = ""
        self.receiver.clear()

    def address(self, signed: Signed) -> str:
        """Give a person an address their provider has verified."""
        address = f"{signed.id.replace('_', '')}@example.org"
        self.world.add(NoticeAddress(person_id=signed.id, address=address))
        return address

    def round(self, minutes: float = 0, *, parts: Parts | None = None) -> int:
        """Tell, and send once, as if so many minutes had passed. Returns how many were tried."""
        parts = parts or self.parts
        outbox.deliver_outbox(parts)
        at = self.world.now() + timedelta(minutes=minutes)
        return delivery_retries.send_due(parts, "mail", at) + delivery_retries.send_due(parts, "channel", at)

    def rounds(self) -> None:
        """Tell and send until nothing is due."""
        while self.round():
            continue

    def deliveries(self, signed: Signed) -> list[Delivery]:
        """A person's, oldest first."""
        with self.world.database.transaction() as tx:
            return list(tx.scalars(select(Delivery).where(Delivery.person_id == signed.id).order_by(Delivery.id)))


@pytest.fixture
def office(world: World, mail_server: MailServer, receiver_server: Receiver) -> Office:
    """See `Office`."""
    return Office(world, mail_server, receiver_server)
