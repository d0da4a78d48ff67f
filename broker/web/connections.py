"""Connections as uvicorn serves them, bounded in time and number, from before there is a request to judge.

What `broker.web.limits` refuses has at least arrived. Here are the clients that never finish a head, go on sending
after their answer, or do not read it; and what is no HTTP, which is answered like every other fault.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from ssl import SSLContext
from typing import Any

import h11
import structlog
from starlette.datastructures import State
from uvicorn.loops.auto import auto_loop_factory
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.base import metrics
from broker.base.addresses import counted_as
from broker.web.middleware import security_headers
from broker.web.problems import MEDIA_TYPE, body_of

log = structlog.get_logger("guestkey.request")
# From opening, or from the first byte of a further request, to the end of the head.
HEAD_SECONDS = 10.0
# For what is still on its way after the answer; closing at once could take the answer from the client.
AFTER_SECONDS = 5.0
# From opening to the end of TLS' handshake. A loop's own bound is 60 s, and until then there is no connection to count.
HANDSHAKE_SECONDS = 10.0
# For 48 KiB of the answer to be taken.
READ_SECONDS = 60.0
# Connections of one address (of IPv6: one /64) without a whole head. Trusted proxies speak for many.
MOST_WITHOUT_HEAD = 64
LONGEST_HEAD = 32 * 1024


def options() -> dict[str, Any]:
    """How uvicorn serves here, wherever it does."""
    return {
        # h11 gives up on an endless head; the faster parser would keep reading it into memory.
        "http": BoundedConnection,
        "loop": "broker.web.connections:event_loop",
        "h11_max_incomplete_event_size": LONGEST_HEAD,
        "ws": "none",
        # The application itself believes forwarded headers, from GUESTKEY_TRUSTED_PROXIES only.
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "log_config": None,
    }


def event_loop() -> asyncio.AbstractEventLoop:
    """The loop uvicorn takes by itself, with a sooner end to unfinished handshakes: uvicorn has no setting for it."""
    loop = auto_loop_factory()()
    begin = loop.create_server

    async def create_server(*listening: Any, ssl: SSLContext | None = None, **how: Any) -> asyncio.Server:
        if ssl is not None:
            how["ssl_handshake_timeout"] = HANDSHAKE_SECONDS
        return await begin(*listening, ssl=ssl, **how)

    loop.create_server = create_server  # type: ignore[assignment, method-assign]
    return loop


class BoundedConnection(H11Protocol):
    """One connection."""

    _head_timer: asyncio.TimerHandle | None = None
    _after_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _counted = "a trusted proxy"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        peer = self.client[0] if self.client else None
        if peer not in self._state.proxies:
            address, waiting = counted_as(peer)[0], self._waiting
            if waiting[address] >= MOST_WITHOUT_HEAD:
                metrics.anonymous_refusals.labels("too_many_connections").inc()
                transport.abort()
                return
            self._counted = address
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.conn.their_state is h11.IDLE:
            self._begin_head()
        super().data_received(data)

    def handle_events(self) -> None:
        """See uvicorn: takes what has arrived."""
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._end_head()

    def on_response_complete(self) -> None:
        """See uvicorn: the answer is on its way."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._after_timer is None:
            self._after_timer = self.loop.call_later(AFTER_SECONDS, self.transport.abort)
        elif self._after_timer is not None and self.conn.their_state is not h11.SEND_BODY:
            self._after_timer.cancel()
            self._after_timer = None

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: the client does not take what it asked for."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._end_head()
        if self._after_timer is not None:
            self._after_timer.cancel()
        super().connection_lost(exc)
        # The request under way, if any, has nobody to be answered.
        self.resume_writing()

    def send_400_response(self, msg: str) -> None:
        """See uvicorn: what came is no HTTP, or more of it than is taken."""
        long = len(self.conn.trailing_data[0]) > LONGEST_HEAD
        self._refuse("too_large" if long else "malformed", 431 if long else 400)

    def _unsupported_upgrade_warning(self) -> None:
        """See uvicorn: nothing is said of it, whoever asks; the request is answered as it is."""

    @property
    def _state(self) -> State:
        state: State = self.app.state
        return state

    @property
    def _waiting(self) -> Counter[str]:
        waiting: Counter[str] = self._state.without_head
        return waiting

    def _begin_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_too_slow)
            self._waiting[self._counted] += 1

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            waiting = self._waiting
            waiting[self._counted] -= 1
            if waiting[self._counted] <= 0:
                del waiting[self._counted]

    def _head_too_slow(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse("too_slow", 408)
        else:
            self.transport.close()

    def _refuse(self, code: str, status: int) -> None:
        """Answer before there is a request, and close. A request under way is not answered besides."""
        metrics.anonymous_refusals.labels(code).inc()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps(body_of(self._state.public_url, code, status)).encode()
            headers = {
                **security_headers(self._state.public_url),
                "Cache-Control": "no-store",
                "Content-Type": MEDIA_TYPE,
                "Content-Length": str(len(content)),
                "Connection": "close",
            }
            for event in (
                h11.Response(status_code=status, headers=list(headers.items())),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
