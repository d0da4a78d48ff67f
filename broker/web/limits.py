"""How much a caller may send, how slowly, and how often. Refused before anything is read, parsed or looked up.

Rates are counted in this process: an installation with N replicas allows up to N times the configured rate. That
stops floods and guessing by hand; a shared limit belongs in front of the replicas.

Bodies are bounded in length, time and number: whoever sends one slowly holds nothing that others need. Someone who goes
away in the middle of one did nothing that is a fault of ours: nothing is answered, logged as a fault or recorded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import MutableMapping
from time import monotonic
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.base.addresses import counted_as
from broker.web.middleware import WITHOUT_HOST, Refuse

# As Apache's mod_reqtimeout counts: time to begin with, more for what comes, and an end to it.
FIRST_SECONDS = 10.0
BYTES_A_SECOND = 1024
LONGEST_SECONDS = 60.0
# Bodies of one address (of IPv6: one /64) that are on their way at once. Bodies of ours come with their heads.
MOST_AT_ONCE = 64


class BodyRefused(BaseException):
    """Not an Exception: no handler on the way may turn it into another answer. `code` is the problem's."""

    def __init__(self, code: str, status: int, wait: int = 0) -> None:
        super().__init__(code)
        self.code = code
        self.status = status
        self.wait = wait


class HungUp(BaseException):
    """The client is gone, and its body will never be whole."""


class Body:
    """The body of one request, as the application receives it. `answering`: the answer has begun, so it is not awaited.

    Once answering, the application only listens for the client's going away.
    """

    def __init__(self, limit: int, open_: Counter[str], address: str, receive: Receive) -> None:
        self._limit = limit
        self._open = open_
        self._address = address
        self._receive = receive
        self._seen = 0
        self._began: float | None = None
        self._whole = False
        self.answering = False

    async def receive(self) -> Message:
        """The next part.

        Raises:
            BodyRefused: too long, too slow, or too many are open.
            HungUp: nothing more will come.
        """
        if self._whole or self.answering:
            return await self._receive()
        self._begin()
        message = await self._in_time()
        if self.answering:
            return message
        if message["type"] == "http.disconnect":
            raise HungUp
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise BodyRefused("too_large", 413)
        if not message.get("more_body", False):
            self.close()
            self._whole = True
        return message

    def close(self) -> None:
        """Nothing more is waited for."""
        if self._began is not None and not self._whole:
            self._open[self._address] -= 1
            if not self._open[self._address]:
                del self._open[self._address]
            self._began = None

    def _begin(self) -> None:
        if self._began is None:
            if self._open[self._address] >= MOST_AT_ONCE:
                raise BodyRefused("too_many_requests", 429, wait=int(FIRST_SECONDS))
            self._open[self._address] += 1
            self._began = monotonic()

    async def _in_time(self) -> Message:
        assert self._began is not None  # set by `_begin`
        allowed = min(LONGEST_SECONDS, FIRST_SECONDS + self._seen / BYTES_A_SECOND)
        try:
            async with asyncio.timeout(self._began + allowed - monotonic()):
                return await self._receive()
        except TimeoutError:
            if self.answering:
                return await self._receive()
            raise BodyRefused("too_slow", 408) from None


LONGEST_TARGET = 4096
LONGEST_HEADERS = 16 * 1024
LONGEST_CREDENTIAL = 8 * 1024
_MOST_BUCKETS = 20_000
# As much as this many subnets (/64) may together, a site (/48) may: it has 65,536 of them.
SUBNETS_OF_A_SITE = 8
# A page asks for several of these; they cost nothing.
_FILES = "/static/"
# Gateways ask here and are nobody we know: what a recognised caller may, each address may here; for OCSP apart, because
# a guest that connects to a gateway in a loop makes it ask, and must not keep it from the revocation list.
_GATEWAYS = "/pki/"
_OCSP = "/pki/ocsp"
_COOKIE = b"__Host-guestkey="


class SizeLimits:
    """ASGI middleware: addresses, headers, credentials and bodies no longer than they need to be.

    A body is counted as it arrives, so neither a missing nor a false Content-Length helps.
    """

    def __init__(self, app: ASGIApp, body_limit: int, refuse: Refuse) -> None:
        self._app = app
        self._body_limit = body_limit
        # Bodies on their way, by the address they come from.
        self._open: Counter[str] = Counter()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = self._too_long(scope)
        if status:
            await self._refuse(scope, receive, send, "too_large", status)
            return
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # Two servers in a row may differ in where it ends, and the rest becomes a request of its own there.
            await self._refuse(scope, receive, send, "malformed", 400)
            return
        await self._serve(scope, receive, send)

    def _too_long(self, scope: Scope) -> int:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_TARGET:
            return 414
        total = 0
        for name, value in scope["headers"]:
            total += len(name) + len(value)
            if name == b"authorization" and len(value) > LONGEST_CREDENTIAL:
                return 431
            if name == b"content-length" and (not value.isdigit() or int(value[:20]) > self._body_limit):
                return 413
        return 431 if total > LONGEST_HEADERS else 0

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        body = Body(self._body_limit, self._open, counted_as(client[0] if client else None)[0], receive)

        async def noted(message: Message) -> None:
            body.answering = True
            await send(message)

        try:
            await self._app(scope, body.receive, noted)
        except HungUp:
            return
        except BodyRefused as refused:
            if not body.answering:
                if refused.wait:
                    scope.setdefault("state", {})["retry_after"] = refused.wait
                await self._refuse(scope, receive, send, refused.code, refused.status)
        finally:
            body.close()


class Buckets:
    """Token buckets by key, oldest forgotten first. A forgotten bucket is a full one, so memory stays bounded."""

    def __init__(self, per_minute: int, most: int = _MOST_BUCKETS) -> None:
        self._burst = float(per_minute)
        self._rate = per_minute / 60
        self._most = most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> int:
        """Take one token. Returns 0, or the whole seconds to wait for the next."""
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        allowed = level >= 1
        self._levels[key] = (level - 1 if allowed else level, now)
        while len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return 0 if allowed else max(1, int((1 - level) / self._rate) + 1)


class RateLimits:
    """ASGI middleware: one rate for each recognised caller, a lower one for each address without one: of IPv6, each /64
    (and eight times as much for each /48), because whoever has one address there has all of them.

    A credential counts as its own caller only after it was recognised once (`state.found`, set by
    `broker.identity.http`): guessing tokens spends the address's rate.
    """

    def __init__(self, app: ASGIApp, per_caller: int, per_address: int, refuse: Refuse) -> None:
        self._app = app
        self._callers = Buckets(per_caller)
        self._addresses = Buckets(per_address)
        self._sites = Buckets(per_address * SUBNETS_OF_A_SITE)
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in WITHOUT_HOST or scope["path"].startswith(_FILES):
            await self._app(scope, receive, send)
            return
        credential = _credential(scope)
        wait = self._take(scope, credential)
        state = scope.setdefault("state", {})
        if wait:
            state["retry_after"] = wait
            await self._refuse(scope, receive, send, "too_many_requests", 429)
            return
        await self._app(scope, receive, send)
        holder = holder_of(state)
        if credential and holder:
            self._remember(credential, holder)

    def _take(self, scope: Scope, credential: bytes | None) -> int:
        holder = self._known.get(credential) if credential else None
        if holder:
            return self._callers.take(holder, monotonic())
        subnet, site = counted_as(scope["client"][0] if scope.get("client") else None)
        if scope["path"].startswith(_GATEWAYS):
            what = "asking" if scope["path"].startswith(_OCSP) else "fetching"
            return self._callers.take(f"gateway {what} {subnet}", monotonic())
        wait = self._addresses.take(subnet, monotonic())
        return wait or (self._sites.take(site, monotonic()) if site else 0)

    def _remember(self, credential: bytes, holder: str) -> None:
        self._known[credential] = holder
        self._known.move_to_end(credential)
        while len(self._known) > _MOST_BUCKETS:
            self._known.popitem(last=False)


def holder_of(state: MutableMapping[str, Any]) -> str | None:
    """The id of the session or token that was recognised behind a request, if any."""
    found = state.get("found")
    return str(found.caller.holder_id) if found is not None else None


def _credential(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"authorization" or (name == b"cookie" and _COOKIE in value):
            return hashlib.sha256(value).digest()
    return None
