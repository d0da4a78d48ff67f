"""Every request passes here: where it is from, whether it came to us and in secret, HEAD, and security headers.

How much and how often somebody may ask is `broker.web.limits`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.base.addresses import Proxies

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


class Peers:
    """ASGI middleware: `scope["client"]` is the client in one spelling, or None; `scope["scheme"]` is how it came."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            peer, port = scope.get("client") or (None, 0)
            seen = self._proxies.seen(peer, scope["scheme"], scope["headers"])
            scope["client"] = None if seen.address is None else (seen.address, port)
            scope["scheme"] = seen.scheme
        await self._app(scope, receive, send)


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """The methods that something at this path answers, over all routes; HEAD comes with GET."""
    found: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, Mount):
            if path.startswith(f"{route.path}/"):
                found.add("GET")
        elif route.methods and route.path_regex.match(path):
            found |= route.methods
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


class HeadRequests:
    """ASGI middleware: HEAD is answered as GET would be, without the body (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_without_body)
        finally:
            # The log of requests says what was asked.
            scope["method"] = "HEAD"
