"""The one way to a foreign identity provider: HTTPS, no redirects, little data, little time, nothing from our side.

A provider is somebody else's server. It may hang, drip, redirect or answer without end, and what it says of itself may
name our own network. So names are looked up here, their addresses judged as webhooks' targets are, and connected to at
that very address; everything, looking up included, ends after `SECONDS`.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from broker.base import tls_reasons
from broker.base.addresses import Address
from broker.base.settings import Settings
from broker.identity.faults import quoted
from broker.outbound.deadline import AbandonableWork, Deadline
from broker.outbound.http_client import is_named, is_public

SECONDS = 5.0
LONGEST_ANSWER = 128 * 1024
_CHUNK = 16 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NAMES = AbandonableWork(16)


class ProviderUnusable(requests.RequestException):
    """The provider cannot be reached, or answered with something that is never used. `why` says which."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass(slots=True)
class _RequestLimits:
    """One request under way: until when, where it may lead, and why it did not if so."""

    settings: Settings
    deadline: Deadline
    why: str = ""

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to a host that may be reached.

        Raises:
            OSError: it may not, or cannot.
        """
        try:
            found = self.deadline.look_up(host, _NAMES)
        except socket.gaierror:
            self.why = f"its name {host} is not known"
            raise
        for address in map(ipaddress.ip_address, found):
            # One inner address among others is no accident.
            if not is_permitted_address(self.settings, address):
                self.why = f"{host} lies inside a network ({address}) that GUESTKEY_SIGN_IN_NETWORKS does not name"
                raise OSError(self.why)
        return self.deadline.connect(found, port)


_trip: ContextVar[_RequestLimits] = ContextVar("trip")


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _trip.get().connect(self.host, self.port or self.default_port)


class _Encrypted(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _trip.get().connect(self.host, self.port or self.default_port)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted


class BoundedAdapter(HTTPAdapter):
    """Sends one request; reads `LONGEST_ANSWER` bytes and waits `SECONDS` at most, however the answer arrives."""

    def __init__(self, settings: Settings, trusted: ssl.SSLContext) -> None:
        self._settings = settings
        self._trusted = trusted
        super().__init__(max_retries=0)

    def init_poolmanager(self, *_: Any, **__: Any) -> None:
        """Connections are made by us; see `HTTPAdapter.init_poolmanager`."""
        self.poolmanager = PoolManager(num_pools=1, maxsize=1, ssl_context=self._trusted)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _EncryptedPool}

    def cert_verify(self, conn: Any, *_: Any) -> None:
        """Always, against what the wire trusts; see `HTTPAdapter.cert_verify`."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """See `HTTPAdapter.send`; whatever the caller allowed, these bounds hold.

        Raises:
            Unusable: there is no answer that could be used.
        """
        request.headers["Accept-Encoding"] = "identity"
        with Deadline(SECONDS) as deadline:
            trip = _RequestLimits(self._settings, deadline)
            token = _trip.set(trip)
            try:
                response = super().send(request, stream=True, timeout=SECONDS)
                if 300 <= response.status_code < 400:
                    response.close()
                    raise ProviderUnusable(
                        f"it answers with a redirect ({response.status_code}), which is never followed"
                    )
                # What `requests` itself would do in `content`, but bounded.
                response._content = _read(response, deadline)
                response._content_consumed = True  # type: ignore[attr-defined]
            except ProviderUnusable:
                raise
            except (OSError, ValueError) as error:
                raise ProviderUnusable(
                    trip.why or _why(error, deadline, urlsplit(request.url or "").hostname or "")
                ) from error
            finally:
                _trip.reset(token)
        return response


class ProviderHttp:
    """The way to providers of one process: where they may lie and whose certificates are trusted, by its settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trusted = ssl.create_default_context(cafile=certifi.where())
        self._trusted.load_default_certs()
        if settings.sign_in_ca_file:
            self._trusted.load_verify_locations(cafile=settings.sign_in_ca_file)

    def bound(self, session: requests.Session) -> requests.Session:
        """Hold a session to these bounds, and to nothing from the environment (proxies, .netrc)."""
        session.trust_env = False
        session.mount("https://", BoundedAdapter(self._settings, self._trusted))
        session.mount("http://", BoundedAdapter(self._settings, self._trusted))
        return session

    def get_json(self, url: str, bearer: str | None = None) -> Any:
        """Fetch a JSON document.

        Args:
            bearer: an access token to show.

        Raises:
            Unusable: unreachable, too slow, too long, redirected, an error, or not JSON.
        """
        headers = {"Accept": "application/json"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        with self.bound(requests.Session()) as session:
            answer = session.get(url, headers=headers, allow_redirects=False)
        if answer.status_code != 200:
            raise ProviderUnusable(f"it answers {answer.status_code}{oauth_error_text(answer)}")
        return as_json(answer)


def is_permitted_address(settings: Settings, address: Address) -> bool:
    """Whether a provider may lie at this address: a public one, or one in a network the operator named."""
    return is_public(address) or is_named(settings.sign_in_networks, address)


def is_acceptable_url(url: Any) -> bool:
    """Whether an address of a provider may be used: https, or http on this very machine; no user part, no fragment."""
    if not isinstance(url, str) or not url.isascii() or any(character <= " " for character in url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    return secure and bool(host) and "@" not in parts.netloc and not parts.fragment


def as_json(answer: requests.Response) -> Any:
    """The JSON of an answer.

    Raises:
        Unusable: it is none.
    """
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError) as error:
        if _is_page(answer):
            raise ProviderUnusable("it answers with a web page (HTML) where JSON belongs") from error
        raise ProviderUnusable("what it answers is no JSON") from error


def oauth_error_text(answer: requests.Response) -> str:
    """What an answer says went wrong, in OAuth's form (RFC 6749 section 5.2), to be put behind a reason."""
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        return " with a web page (HTML)" if _is_page(answer) else ""
    if not isinstance(said, dict):
        return ""
    words = [quoted(said.get(name)) for name in ("error", "error_description")]
    return f" ({': '.join(filter(None, words))})" if any(words) else ""


def _is_page(answer: requests.Response) -> bool:
    kind = answer.headers.get("Content-Type", "").lower()
    return "html" in kind or answer.content.lstrip()[:1] == b"<"


def _read(response: requests.Response, deadline: Deadline) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > LONGEST_ANSWER:
            response.close()
            raise ProviderUnusable(f"it answers more than {LONGEST_ANSWER // 1024} KB")
    # A connection that was cut may look like the end of the answer.
    deadline.left()
    return bytes(body)


def _why(error: BaseException, deadline: Deadline, host: str) -> str:
    """The reason of a fault in words, from the exceptions that led to it."""
    try:
        deadline.left()
    except TimeoutError:
        return f"it did not answer in full within {SECONDS:g} seconds"
    if (refused := tls_reasons.untrusted_certificate_in(error)) is not None:
        return f"its certificate is not trusted: {tls_reasons.explain_certificate_error(refused, host).why}"
    if told := tls_reasons.explain_handshake_error(error):
        return told
    for cause in tls_reasons.causes(error):
        if isinstance(cause, ConnectionRefusedError):
            return "nothing answers at its address (connection refused)"
        if isinstance(cause, TimeoutError):
            return "it cannot be connected to in time"
    return f"the connection failed ({type(error).__name__})"
