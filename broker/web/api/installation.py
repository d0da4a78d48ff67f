"""`/installation`: whether the installation is open, closing and opening it, and confirming grants after a restore."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.base.database import now as clock
from broker.base.errors import Forbidden
from broker.base.paging import Page
from broker.identity.permissions import sees_everything
from broker.revocation import closing
from broker.web.api.common import CallerNow, FreshCaller, Id, PartsNow, Reason, WindowNow
from broker.web.api.holding_shapes import GrantShown, grants_shown
from broker.web.api.suspensions import CountsShown
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/installation", tags=["installation"])


class StandingShown(Shown):
    """How the installation stands; `held` grants wait to be confirmed, `live` leases have not ended."""

    closed_at: datetime | None
    why: str
    held_before: datetime | None
    held: int
    live: int


class CloseBody(Reason):
    """Why, and the dry run's counts for the report's comparison (`/suspensions/preview?what=installation`)."""

    expected: CountsShown | None = None


class ClosedShown(StandingShown):
    """How it stands now; `suspension` leads to the report on what became of each credential."""

    suspension: str


class ConfirmBody(Strict):
    """Which held grants count again: a vendor's, or those named."""

    vendor: Id | None = None
    grants: Annotated[list[Id], Field(default_factory=list, max_length=500)]

    model_config = ConfigDict(json_schema_extra={"examples": [{"vendor": "vn_01k9zq6c5w3m8v4x7r2t1y0b9d"}]})

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.vendor is None) == (not self.grants):
            raise ValueError("name either a vendor or grants")
        return self


class Confirmed(BaseModel):
    """How many grants this request confirmed, and how many still wait."""

    confirmed: int
    held: int


@router.get("", operation_id="show_installation")
def show_installation(caller: CallerNow, parts: PartsNow) -> StandingShown:
    """How the installation stands. For admins and auditors."""
    if not sees_everything(caller):
        raise Forbidden("Only admins and auditors can see this.", advice="Ask an admin of the organisation.")
    with parts.database.transaction() as tx:
        return StandingShown.model_validate(closing.installation_state(tx))


@router.post("/close", operation_id="close_installation", status_code=202)
def close_installation(body: CloseBody, caller: FreshCaller, parts: PartsNow) -> ClosedShown:
    """Close everything: nothing is issued any more, everybody is signed out (you too), every lease ends. For admins."""
    expected = body.expected.model_dump() if body.expected is not None else None
    with parts.database.transaction() as tx:
        begun = closing.close_manually(tx, caller, body.reason, clock(tx), expected=expected)
        return ClosedShown(**asdict(closing.installation_state(tx)), suspension=begun.id)


@router.post("/open", operation_id="open_installation")
def open_installation(body: Reason, caller: FreshCaller, parts: PartsNow) -> StandingShown:
    """Open again; no session and no lease comes back, held grants stay held. For admins."""
    with parts.database.transaction() as tx:
        return StandingShown.model_validate(closing.reopen(tx, caller, body.reason, clock(tx)))


@router.get("/held-grants", operation_id="list_held_grants")
def list_held_grants(caller: CallerNow, parts: PartsNow, window: WindowNow) -> Page[GrantShown]:
    """Grants that wait to be confirmed after a restore, oldest first. For admins and auditors."""
    with parts.database.transaction() as tx:
        held = closing.held_grants(tx, caller, after=window.cursor or "", limit=window.limit + 1)
        more = held[window.limit - 1].id if len(held) > window.limit else None
        return Page(items=grants_shown(tx, list(held[: window.limit])), next_cursor=more)


@router.post("/confirm-grants", operation_id="confirm_grants")
def confirm_grants(body: ConfirmBody, caller: FreshCaller, parts: PartsNow) -> Confirmed:
    """Let held grants count again, 500 at most in a request; one's own wait for another admin. For admins."""
    with parts.database.transaction() as tx:
        done = closing.confirm_grants(tx, caller, clock(tx), vendor=body.vendor, grants=body.grants)
        return Confirmed(confirmed=done, held=closing.installation_state(tx).held)
