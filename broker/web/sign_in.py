"""Signing in and out with a browser: choosing a source, going to its provider, coming back, joining by a link.

Which sources exist is nobody's business: strangers are shown the organisation's, a browser also the one it used
last, and everybody else follows the link they were sent. Cookies are this file's affair, decisions are
`broker.identity.login`'s.

Sign-ins wait for identity providers in threads of their own, so many for each provider, and not for long: whoever signs
in is a stranger, and who answers them is somebody else's server. A flood of sign-ins at a provider that hangs holds the
few threads which that provider may have; everybody else's requests, and other providers' people, have theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import quote, urlencode

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import APIRouter, Path, Query
from fastapi.responses import RedirectResponse
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown
from broker.base.settings import Settings
from broker.identity import invitations, login, sources
from broker.identity.http import SESSION_COOKIE, SIGN_IN_COOKIE, drop_cookie, set_cookie
from broker.identity.providers import Providers
from broker.identity.sign_in_admission import BrowserInfo
from broker.registry.naming import names_of
from broker.runtime.parts import Parts
from broker.web.api.common import PartsNow, parts_of
from broker.web.portal.pages import render
from broker.web.portal.security import ask_about_allowed, end_session
from broker.web.portal.viewer import Sent, anybody

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
        if places.statistics().tasks_waiting >= _WAITING:
            raise _busy()
        try:
            with fail_after(LONGEST_WAIT):
                await places.acquire()
        except TimeoutError as error:
            raise _busy() from error
        try:
            return await to_thread.run_sync(work, limiter=self._threads)
        finally:
            places.release()


def _busy() -> BackendDown:
    return BackendDown(
        "Too many people are signing in through this identity provider now, or it is slow.",
        backend="identity_provider",
        advice="Try again in ten seconds: reload this page.",
    )


router = APIRouter(include_in_schema=False)
SOURCE_COOKIE = "__Host-guestkey-source"
_SOURCE_SECONDS = 180 * 86400
_ATTEMPT_SECONDS = 600
Next = Annotated[str, Query(max_length=2000)]
Token = Annotated[str, Path(max_length=64)]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to sign in, as the page shows it."""

    href: str
    name: str
    used_before: bool


@router.get("/sign-in")
def choose(request: Request, parts: PartsNow, next: Next = "/", source: str = "") -> Response:
    """Choose where to sign in."""
    path = login.safe_path(next)
    if source:
        return RedirectResponse(_start_path(source.strip()[:64], path), 303)
    with parts.database.transaction() as tx:
        ways = _ways(tx, request.cookies.get(SOURCE_COOKIE, ""), path)
    return render("sign_in/choose.html", ways=ways, next=path)


@router.get("/sign-in/callback")
async def arrive(request: Request) -> Response:
    """Back from the provider: a session, or one sentence on why not."""
    parts = parts_of(request)
    desk: SignInQueue = request.app.state.sign_in_desk
    answer = login.check_single(request.query_params.multi_items())
    bound = request.cookies.get(SIGN_IN_COOKIE, "")
    way = await to_thread.run_sync(lambda: login.route_of_callback(parts, answer, bound))
    address, used = request.client.host if request.client else "", request.cookies.get(SESSION_COOKIE, "")
    browser = BrowserInfo(address, request.headers.get("user-agent", ""), used)
    started = await desk.apart(
        way.source.issuer, lambda: login.complete_sign_in(parts, desk.providers, answer, bound, browser)
    )
    response = RedirectResponse("/" if started.pending else started.next_path, 303)
    set_cookie(response, SESSION_COOKIE, started.session_token, seconds=parts.settings.session_lifetime)
    set_cookie(response, SOURCE_COOKIE, started.source_id, seconds=_SOURCE_SECONDS)
    return response


@router.get("/sign-in/{source_id}")
async def start(source_id: Annotated[str, Path(max_length=64)], request: Request, next: Next = "/") -> Response:
    """Off to a source's provider."""
    return await _off(request, lambda parts: login.route_by_source(parts, source_id), next)


@router.get("/join/{token}")
def invited(token: Token, parts: PartsNow) -> Response:
    """What an invitation to join means. Looking uses nothing up: programs follow links in messages."""
    with parts.database.transaction() as tx:
        invitation = invitations.pending(tx, token, "join", clock(tx))
        of = invitation.vendor_id
        party = names_of(tx, [of]).get(of) if of else None
    return render(
        "sign_in/invited.html",
        purpose="join",
        party=party,
        role=invitation.org_role,
        used=invitation.redeemed_at is not None,
        href=f"/join/{token}/sign-in",
    )


@router.get("/enrol/{token}")
def invited_to_enrol(token: Token, parts: PartsNow) -> Response:
    """What an invitation to add a second factor means."""
    with parts.database.transaction() as tx:
        invitation = invitations.pending(tx, token, "enrol_factor", clock(tx))
    used = invitation.redeemed_at is not None
    return render(
        "sign_in/invited.html", purpose="enrol", party=None, role=None, used=used, href=f"/enrol/{token}/sign-in"
    )


@router.get("/join/{token}/sign-in")
async def start_joining(token: Token, request: Request) -> Response:
    """Off to the provider that an invitation to join is bound to."""
    return await _off(request, lambda parts: login.route_by_invitation(parts, token, "join"), "/")


@router.get("/enrol/{token}/sign-in")
async def start_enrolling(token: Token, request: Request) -> Response:
    """Off to the provider of the person that an enrolment link was made for."""
    return await _off(request, lambda parts: login.route_by_invitation(parts, token, "enrol_factor"), "/security")


@router.post("/sign-out")
def sign_out(request: Request, parts: PartsNow, sent: Sent) -> Response:
    """End this browser's session; the form's CSRF token was checked with its fields.

    Where it has signed command lines in that still live, the person is asked about them first.
    """
    viewer = anybody(request)
    if (asked := ask_about_allowed(viewer, viewer.caller.holder_id, "/sign-out", sent)) is not None:
        return asked
    end_session(viewer, viewer.caller.holder_id, sent)
    response = RedirectResponse("/sign-in", 303)
    drop_cookie(response, SESSION_COOKIE)
    return response


def _ways(tx: Transaction, last_used: str, path: str) -> list[Way]:
    own = sources.shown_to_strangers(tx)
    ways = [Way(_start_path(source.id, path), source.name, source.id == last_used) for source in own]
    if all(not way.used_before for way in ways) and (last := sources.find_active(tx, last_used)) is not None:
        ways.append(Way(_start_path(last.id, path), last.name, used_before=True))
    return sorted(ways, key=lambda way: not way.used_before)


def _start_path(source_id: str, path: str) -> str:
    return f"/sign-in/{quote(source_id, safe='')}?{urlencode({'next': path})}"


async def _off(request: Request, find: Callable[[Parts], login.SignInRoute], after: str) -> Response:
    parts, bound = parts_of(request), request.cookies.get(SIGN_IN_COOKIE, "")
    desk: SignInQueue = request.app.state.sign_in_desk
    way = await to_thread.run_sync(lambda: find(parts))
    departure = await desk.apart(
        way.source.issuer, lambda: login.begin_sign_in(parts, desk.providers, way, next_path=after, browser_token=bound)
    )
    response = RedirectResponse(departure.url, 303)
    set_cookie(response, SIGN_IN_COOKIE, departure.browser_token, seconds=_ATTEMPT_SECONDS)
    return response
