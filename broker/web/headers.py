"""Security headers on every answer, and the checks that a request came to us, as itself (Host) and in secret (TLS)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ABSOLUTE = re.compile(r"(?i)https?://([^/]*)(/.*)?", re.DOTALL)
# Probes and scrapers address a replica by its own name, so Host says nothing there.
WITHOUT_HOST = frozenset({"/healthz", "/readyz", "/metrics"})
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
Refuse = Callable[[Scope, Receive, Send, str, int], Awaitable[None]]


def security_headers(public_url: str) -> dict[str, str]:
    """What every answer carries, by header."""
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
    if public_url.startswith("https://"):
        headers["Strict-Transport-Security"] = "max-age=63072000"
    return headers


class SecurityHeaders:
    """ASGI middleware. Answers are not kept by anybody unless a route says so (static files do)."""

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self._app = app
        self._headers = security_headers(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


class HostCheck:
    """ASGI middleware: another Host than the public one is refused, so no link is ever built from it."""

    def __init__(self, app: ASGIApp, public_url: str, refuse: Refuse) -> None:
        self._app = app
        self._host = urlsplit(public_url).netloc.lower()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            _to_origin_form(scope)
        if scope["type"] != "http" or scope["path"] in WITHOUT_HOST or self._is_ours(scope):
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, receive, send, "misdirected", 421)

    def _is_ours(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        return hosts in ([self._host], [f"{self._host}:443"], [f"{self._host}:80"])


def _to_origin_form(scope: Scope) -> None:
    """`GET https://guestkey.example/x` means `/x` of that host, whatever `Host` says (RFC 9112, 3.2.2)."""
    said = _ABSOLUTE.fullmatch(scope["path"])
    if said is None:
        return
    raw = _ABSOLUTE.fullmatch((scope.get("raw_path") or b"").decode("latin-1"))
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    scope["path"] = said[2] or "/"
    scope["raw_path"] = (raw[2] or "/").encode("latin-1") if raw else b""
    scope["headers"] = [*headers, (b"host", said[1].encode("latin-1", "replace"))]


class TlsCheck:
    """ASGI middleware: where the public address is https, what came in the clear is refused.

    The scheme is what a trusted proxy said, or else that of the connection: whoever reaches a replica past its front
    would otherwise send credentials over the network for anybody to read, and be answered.
    """

    def __init__(self, app: ASGIApp, public_url: str, refuse: Refuse) -> None:
        self._app = app
        self._needed = urlsplit(public_url).scheme == "https"
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        in_secret = scope["type"] != "http" or not self._needed or scope["scheme"] == "https"
        if in_secret or scope["path"] in WITHOUT_HOST:
            await self._app(scope, receive, send)
        else:
            await self._refuse(scope, receive, send, "tls_needed", 403)
