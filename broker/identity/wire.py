"""The one way to a foreign identity provider: HTTPS, no redirects, little data, little time, nothing from our side.

A provider is somebody else's server. It may hang, drip, redirect to our own network or answer without end.
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

SECONDS = 5.0
LONGEST_ANSWER = 128 * 1024
_CHUNK = 16 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Unusable(requests.RequestException):
    """The provider answered with something that is never used: a redirect, too much, too slowly."""


class BoundedAdapter(HTTPAdapter):
    """Sends one request; reads `LONGEST_ANSWER` bytes and waits `SECONDS` at most, however the answer arrives."""

    def send(self, request: requests.PreparedRequest, *_: Any, **given: Any) -> requests.Response:
        """See `HTTPAdapter.send`; whatever the caller allowed, these bounds hold."""
        end = monotonic() + SECONDS
        request.headers["Accept-Encoding"] = "identity"
        response = super().send(request, stream=True, timeout=SECONDS, verify=given.get("verify", True))
        if 300 <= response.status_code < 400:
            response.close()
            raise Unusable("a redirect")
        # What `requests` itself would do in `content`, but bounded.
        response._content = _read(response, end)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response


def bounded(session: requests.Session) -> requests.Session:
    """Hold a session to these bounds, and to nothing from the environment (proxies, .netrc)."""
    session.trust_env = False
    session.mount("https://", BoundedAdapter(max_retries=0))
    session.mount("http://", BoundedAdapter(max_retries=0))
    return session


def get_json(url: str) -> Any:
    """Fetch a JSON document.

    Raises:
        requests.RequestException: unreachable, too slow, too long, redirected, an error, or not JSON.
    """
    with bounded(requests.Session()) as session:
        answer = session.get(url, headers={"Accept": "application/json"}, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()


def acceptable(url: Any) -> bool:
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


def _read(response: requests.Response, end: float) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK):
        body += chunk
        if len(body) > LONGEST_ANSWER or monotonic() > end:
            response.close()
            raise Unusable("too much or too slow")
    return bytes(body)
