"""Who looks at a page, what its frame shows them, and the forms they send. The portal's only way to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.routing import Match

from broker.base.errors import Forbidden, Invalid
from broker.identity.caller import Caller, FoundCaller
from broker.identity.factors import FactorProof
from broker.identity.http import check_own_form, find_session
from broker.identity.login import safe_path
from broker.identity.nouns import declared
from broker.identity.permissions import sees_everything
from broker.notices.choices import Attention, attention
from broker.runtime.parts import Parts
from broker.web.portal.pages import duration

# A table has up to 1,600 columns, each a box to tick.
_MOST_FIELDS = 1800
_OF_AUDITORS = ("/events", "/access-at", "/suspensions")
# What is not among them comes last.
_ORDER = (
    *("/", "/datasets", "/requests", "/queue", "/leases", "/notices", "/people", "/vendors", "/proposals", "/grants"),
    *("/why", "/teams", "/services", "/sources", "/policy", *_OF_AUDITORS, "/installation", "/settings/notices"),
)
# More would push a page's beginning down on a small screen; the rest is one press away.
MOST_PLACES = 8


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """One entry of the navigation; `exact` if this very page is it, `here` also for the pages below."""

    href: str
    name: str
    here: bool
    exact: bool


@dataclass(frozen=True, slots=True)
class Viewer:
    """The signed-in person behind a page.

    `proof`: of the second factor that came with this form.
    """

    request: Request
    parts: Parts
    found: FoundCaller
    attention: Attention
    proof: FactorProof | None = None

    @property
    def caller(self) -> Caller:
        """The person, as this session proved them."""
        return self.found.caller

    @property
    def now(self) -> datetime:
        """PostgreSQL's clock when the person was recognised."""
        return self.found.now

    @property
    def csrf_token(self) -> str:
        """What this session's forms must carry."""
        return self.found.csrf_token

    @property
    def path(self) -> str:
        """Where a link can bring them back to: this page as it was asked for, or after a form its page."""
        if self.request.url.path == "/confirm":
            # It only leads on: coming back to it would ask once more.
            return safe_path(self.request.query_params.get("next", "/"))
        return safe_path(_page_of(self.request))

    @property
    def inside(self) -> bool:
        """Whether they are of the organisation itself."""
        return self.caller.vendor_id is None

    @property
    def places(self) -> list[NavigationItem]:
        """The navigation, as far as they have use for it."""
        if self.found.status != "active":
            return []
        here, caller = self.request.url.path, self.caller
        places = {f"/{noun.plural}": noun.menu.title for noun in declared() if noun.menu and noun.menu.for_(caller)}
        places |= {"/": "Home", "/notices": "Notices (unread)" if self.attention.unread else "Notices"}
        if self.inside:
            places |= {"/queue": "Queue", "/why": "Explain a decision"}
        if self.attention.owns:
            places["/proposals"] = "Proposals"
        if sees_everything(caller):
            places |= {"/policy": "Policy", "/events": "Events", "/access-at": "Past access"}
            places |= {"/installation": "Installation", "/settings/notices": "Channels"}
        order = _ORDER if caller.is_admin else ("/", *_OF_AUDITORS, *_ORDER)
        known = {href: order.index(href) for href in places if href in order}
        in_order = sorted(places, key=lambda href: known.get(href, len(order)))
        return [
            NavigationItem(href, places[href], f"{here}/".startswith(f"{href}/"), here == href) for href in in_order
        ]

    @property
    def idle_seconds(self) -> int:
        """After how long without a request this session ends."""
        return self.parts.settings.session_idle

    @property
    def seconds_left(self) -> int:
        """How long this session lasts at most, used or not."""
        ends = self.found.ends_at
        return self.parts.settings.session_lifetime if ends is None else int((ends - self.now).total_seconds())

    @property
    def first_places(self) -> list[NavigationItem]:
        """The places always in sight."""
        places = self.places
        return places if len(places) <= MOST_PLACES + 1 else places[:MOST_PLACES]

    @property
    def more_places(self) -> list[NavigationItem]:
        """The places behind "More"."""
        return self.places[len(self.first_places) :]

    @property
    def factor_says(self) -> str:
        """How fresh the second factor is."""
        at = self.caller.factor_at
        if at is None:
            return "Second factor not confirmed" if self.caller.factor_enrolled else "No second factor yet"
        return f"Second factor {duration(max(1.0, (self.now - at).total_seconds()))} ago"


def anybody(request: Request) -> Viewer:
    """The person behind a page, confirmed by an admin or still waiting.

    Raises:
        NotSignedIn: nobody.
        Forbidden: the page was asked for with an API token.
    """
    found = find_session(request)
    parts: Parts = request.app.state.parts
    with parts.database.transaction() as tx:
        return Viewer(request, parts, found, attention(tx, found.caller))


class Waiting(Forbidden):
    """The person has joined and no admin has confirmed that yet: they are shown where they stand."""

    code = "person_pending"


def member(viewer: Annotated[Viewer, Depends(anybody)]) -> Viewer:
    """The active person behind a page.

    Raises:
        Waiting: no admin has confirmed them yet.
    """
    if viewer.found.status != "active":
        raise Waiting("An admin has not confirmed you yet.")
    return viewer


async def fields(request: Request) -> Mapping[str, str]:
    """The fields of a form, each given once, none of them a file.

    Raises:
        Invalid: as for `fields_and_file`.
    """
    found, _ = await fields_and_file(request, max_files=0, max_fields=_MOST_FIELDS)
    return {name: value.replace("\r\n", "\n") for name, value in found.items()}


async def fields_and_file(request: Request, *, max_files: int, max_fields: int) -> tuple[Mapping[str, str], bytes]:
    """The fields of a form and the file it brings. Asynchronous because a form can be read in no other way here.

    Raises:
        Invalid: a field comes twice, or is one file too many; the form is no text in UTF-8.
    """
    try:
        async with request.form(max_files=max_files, max_fields=max_fields) as form:
            sent = form.multi_items()
            "".join(value for _, value in sent if isinstance(value, str)).encode()
            found = {name: value for name, value in sent if not isinstance(value, UploadFile)}
            files = [value for _, value in sent if isinstance(value, UploadFile)][:max_files]
            content = await files[0].read() if files else b""
    except (UnicodeError, LookupError):
        raise Invalid("The form is not valid UTF-8.", advice="Go back, reload the page and send it again.") from None
    if len(found) + len(files) != len(sent):
        raise Invalid("The form contains a field twice.", advice="Go back, reload the page and send it again.")
    return found, content


def _own_form(request: Request, sent: Annotated[Mapping[str, str], Depends(fields)]) -> Mapping[str, str]:
    check_own_form(request, sent.get("csrf_token", ""))
    return sent


def seen_again(viewer: Viewer) -> Viewer:
    """The same person, recognised anew: after something about their session has changed."""
    del viewer.request.state.found
    return anybody(viewer.request)


def sign_in_path(request: Request) -> str:
    """Where somebody without a session goes, to come back here afterwards if this is a page."""
    path = _page_of(request)
    return f"/sign-in?next={quote(path)}" if path != "/" else "/sign-in"


def _page_of(request: Request) -> str:
    """The page asked for, its filters included; for a form its own path, or the nearest above that can be opened."""
    if request.method == "GET":
        return request.url.path + (f"?{request.url.query}" if request.url.query else "")
    parts = request.url.path.split("/")
    for count in range(len(parts), 1, -1):
        path = "/".join(parts[:count])
        scope = {**request.scope, "method": "GET", "path": path}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes):
            return path
    return "/"


AnybodyNow = Annotated[Viewer, Depends(anybody)]
MemberNow = Annotated[Viewer, Depends(member)]
Sent = Annotated[Mapping[str, str], Depends(_own_form)]
