"""Where each request comes from, settled once before anything looks at it (`broker.base.addresses`)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from broker.base.addresses import Proxies


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
