"""Where sign-ins wait for identity providers: in threads of their own, so many for each provider, and not for long.

Whoever signs in is a stranger, and who answers them is somebody else's server. A flood of sign-ins at a provider that
hangs holds the few threads which that provider may have; everybody else's requests, and other providers' people, have
theirs. Waiting for a thread costs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, fail_after, to_thread
from starlette.requests import Request

from broker.base.errors import BackendDown
from broker.base.settings import Settings
from broker.identity.oidc import Providers

T = TypeVar("T")
# Sign-ins under way at one provider, how many more may wait for their turn, and for how many seconds.
_AT_ONCE = 4
_WAITING = 32
LONGEST_WAIT = 3.0
# Threads for all providers together.
_THREADS = 24


class SignInQueue:
    """The sign-ins of one replica that are at a provider, and what it knows of providers."""

    def __init__(self, settings: Settings) -> None:
        self.providers = Providers(settings)
        self._threads = CapacityLimiter(_THREADS)
        self._places: dict[str, CapacityLimiter] = {}

    async def apart(self, issuer: str, work: Callable[[], T]) -> T:
        """What the work returns, done by a thread that nobody but sign-ins needs.

        Args:
            issuer: whose provider the work asks; one from the records, so that there are not many.

        Raises:
            BackendDown: too many are at this provider already.
        """
        places = self._places.setdefault(issuer, CapacityLimiter(_AT_ONCE))
        await _enter(places)
        try:
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            places.release()


async def _enter(places: CapacityLimiter) -> None:
    if places.statistics().tasks_waiting >= _WAITING:
        raise _busy()
    try:
        with fail_after(LONGEST_WAIT):
            await places.acquire()
    except TimeoutError as error:
        raise _busy() from error


def desk_of(request: Request) -> SignInQueue:
    """The desk of this replica."""
    state = request.app.state
    if not hasattr(state, "sign_in_desk"):
        state.sign_in_desk = SignInQueue(state.settings)
    desk: SignInQueue = state.sign_in_desk
    return desk


def _busy() -> BackendDown:
    return BackendDown(
        "Too many people are signing in through this identity provider now, or it is slow.",
        backend="identity_provider",
        advice="Try again in ten seconds: reload this page.",
    )
