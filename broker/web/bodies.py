"""Request bodies, bounded in length, time and number: whoever sends one slowly holds nothing that others need.

Someone who goes away in the middle of one did nothing that is a fault of ours: nothing is answered, logged as a fault
or recorded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic

from starlette.types import Message, Receive, Scope

from broker.base.addresses import counted_as

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


class Bodies:
    """What is on its way, by the address it comes from."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[str] = Counter()

    def of(self, scope: Scope, receive: Receive) -> Body:
        """The body of one request."""
        client = scope.get("client")
        return Body(self._limit, self._open, counted_as(client[0] if client else None)[0], receive)


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
            Refused: too long, too slow, or too many are open.
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
