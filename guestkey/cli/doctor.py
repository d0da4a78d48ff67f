"""What is wrong between this machine and the broker, and how to mend it: one check after the other, causes first.

Each is bounded in time, none sends anything but what every command sends, and none prints a secret.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from broker.base import tls_reasons
from guestkey.cli import config, keyrings, network, tokens
from guestkey.cli.api import Api
from guestkey.cli.clients import CLIENTS
from guestkey.cli.faults import Code, Fault

API_VERSION = "1"
CONNECT_SECONDS = 5.0
_SOON = timedelta(days=14)
_SKEW_SECONDS = 30.0
_SYMBOLS = {"good": "✓", "odd": "!", "bad": "✕"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `state` is `good`, `odd` or `bad`; `mend` says what to do about it; `said` ends with the
    time `at`, if there is one.
    """

    check: str
    state: str
    said: str
    mend: str = ""
    code: Code = Code.DONE
    at: str = ""

    @property
    def symbol(self) -> str:
        """How it is marked."""
        return _SYMBOLS[self.state]


def good(check: str, said: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "good", said)


def odd(check: str, said: str, mend: str) -> Finding:
    """Works, but somebody may wonder."""
    return Finding(check, "odd", said, mend)


def bad(check: str, said: str, mend: str, code: Code = Code.FAULT) -> Finding:
    """Does not work; `code` is what commands will exit with."""
    return Finding(check, "bad", said, mend, code)


def examine(wanted: str | None, open_api: Callable[[str, str | None], Api]) -> Iterator[Finding]:
    """Every check, as its result comes; what others may follow from comes first.

    Args:
        wanted: the address given by hand, or None for the one that is kept.
        open_api: makes the API at an address as a token, or as nobody.
    """
    try:
        url = config.installation_url(wanted)
    except Fault as fault:
        yield bad("address", fault.what, fault.next_step, fault.code)
        return
    yield good("address", url)
    there = False
    for finding in _way(url, open_api):
        there = (finding.check == "server" and finding.state == "good") or there
        yield finding
    yield from _token(url)
    if there:
        yield from _signed_in(url, open_api)
    yield from _tools()


def worst(findings: list[Finding]) -> Code:
    """The exit code: that of the first thing that does not work, because what follows may follow from it."""
    return next((finding.code for finding in findings if finding.state == "bad"), Code.DONE)


def _way(url: str, open_api: Callable[[str, str | None], Api]) -> Iterator[Finding]:
    """From here to the installation; what makes the rest pointless is the last."""
    try:
        api, context = open_api(url, None), network.trust(url)
    except Fault as fault:
        yield bad("settings", f"{fault.what} {fault.why}".rstrip(), fault.next_step, fault.code)
        return
    host, port = _place(url)
    proxy = network.proxy(url)
    if proxy is not None:
        try:
            host, port = _place(proxy)
            # Without what it may hold of a password.
            yield odd("proxy", f"requests go through {host} port {port}", f"If that fails: NO_PROXY={_place(url)[0]}")
        except ValueError:
            yield bad("proxy", "the one that the environment names has no address", network.MEND_PROXY, Code.USAGE)
            return
    if (unreachable := _reach(host, port)) is not None:
        yield unreachable
        return
    if proxy is None and url.startswith("https:"):
        found = _tls(host, port, context)
        yield found
        if found.state == "bad":
            return
    yield from _server(api)


def _token(url: str) -> Iterator[Finding]:
    try:
        kept = tokens.find(url)
    except Fault as fault:
        yield bad("token", f"{fault.what} {fault.why}".rstrip(), fault.next_step, fault.code)
        return
    if kept.place == "variable":
        yield good("token", "taken from GUESTKEY_TOKEN")
    elif kept.token is None and kept.locked:
        mend = "Unlock the keyring." if kept.trouble == keyrings.LOCKED else keyrings.MEND
        yield bad("token", f"{kept.trouble}, and a token may be in it", mend)
    elif kept.token is None:
        also = f"; {kept.trouble}" if kept.trouble not in ("", tokens.NO_KEYRING, tokens.PASSED_OVER) else ""
        yield bad("token", f"none is kept here{also}", "guestkey login", Code.SIGN_IN)
    elif kept.place == "file" and kept.trouble == tokens.PASSED_OVER:
        yield good("token", f"kept in {tokens.tokens_file()}: {kept.trouble}")
    elif kept.place == "file":
        why = kept.trouble or "the keyring holds none"
        yield odd("token", f"kept in {tokens.tokens_file()}: {why}", "With a keyring that works: guestkey login")
    else:
        yield good("token", "kept in the system's keyring")


def _tools() -> Iterator[Finding]:
    for kind, client in CLIENTS.items():
        if (program := client.program) is not None:
            try:
                yield good(program.name, program.find())
            except Fault as fault:
                yield odd(program.name, fault.what, f"Only needed for credentials of kind {kind}. {fault.next_step}")
    try:
        with socket.create_server(("127.0.0.1", 0)):
            yield good("callback", "a local port can be opened for signing in")
    except OSError as error:
        yield odd("callback", f"no local port can be opened: {error.strerror}", "guestkey login asks for the address")


def _reach(host: str, port: int) -> Finding | None:
    """What keeps this machine from connecting; None where it can."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return bad("name", f"{host} has no address", "Check the name, the network and its DNS.", Code.BACKEND)
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or "refused")
        where = f"{addresses[0][4][0]} port {port}"
        return bad("connection", f"{where}: {why}", "Is it running? Does a firewall keep you out?", Code.BACKEND)
    return None


def _tls(host: str, port: int, context: ssl.SSLContext) -> Finding:
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        found = tls_reasons.explain_certificate_error(error, host)
        return bad("certificate", found.why, found.mend, Code.BACKEND)
    except (ssl.SSLError, OSError) as error:
        said = "it does not speak TLS there" if isinstance(error, ssl.SSLError) else "no answer in time"
        return bad("certificate", said, "Check the port in the address.", Code.BACKEND)
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    if ends - datetime.now(UTC) < _SOON:
        return odd("certificate", f"ends {ends:%Y-%m-%d %H:%M} UTC", "Tell the operator to renew it.")
    return good("certificate", f"valid for {host} until {ends:%Y-%m-%d}")


def _server(api: Api) -> Iterator[Finding]:
    try:
        said_at = api.clock()
        version = str(api.document("/openapi.json").get("info", {}).get("version"))
    except Fault as fault:
        yield bad("server", fault.why or fault.what, "Check the address: guestkey login URL", fault.code)
        return
    if version != API_VERSION:
        mend = "pip install --upgrade guestkey, or ask the operator to upgrade the installation."
        yield bad("server", f"speaks API {version}; this command line speaks {API_VERSION}", mend)
        return
    yield good("server", f"speaks API {version}")
    yield from _clock(said_at)
    yield _ready(api)


def _clock(header: str) -> Iterator[Finding]:
    try:
        skew = (datetime.now(UTC) - parsedate_to_datetime(header)).total_seconds()
    except (TypeError, ValueError):
        return
    if abs(skew) > _SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        said = f"this machine's clock is {abs(skew):.0f} s {ahead} the server's"
        yield bad("clock", said, "Synchronise this machine's clock; one-time codes depend on it.")
    else:
        yield good("clock", "agrees with the server's")


def _ready(api: Api) -> Finding:
    try:
        answer = api.document("/readyz")
    except Fault as fault:
        answer = fault.problem
    missing = answer.get("missing") or {}
    if answer.get("ready") is True:
        return good("ready", "the server decides, and its backends answer")
    said = "; ".join(f"{part}: {why}" for part, why in missing.items()) or "the installation cannot issue now"
    return bad("ready", said, "Tell the operator; it recovers by itself when the backend is back.", Code.BACKEND)


def _signed_in(url: str, open_api: Callable[[str, str | None], Api]) -> Iterator[Finding]:
    try:
        token = tokens.load(url)
        if token is None:
            return
        me = open_api(url, token).get("/me")
    except Fault as fault:
        if fault.problem or fault.code is Code.BACKEND:
            yield bad("signed in", fault.why or fault.what, "guestkey login", fault.code)
        return
    yield Finding("signed in", "good", f"as {me.get('name') or me.get('id')}, since", at=str(me.get("signed_in_at")))
    if me.get("factor_enrolled") is False:
        yield odd("second factor", "you have none yet", "Add one in the portal under Security.")
    elif me.get("factor_at") is None:
        yield odd("second factor", "not confirmed in this sign-in", "guestkey confirm")
    else:
        yield Finding("second factor", "good", "proven", at=str(me["factor_at"]))


def _place(url: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: there is none.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError(url)
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
