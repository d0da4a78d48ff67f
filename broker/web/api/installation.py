"""`/installation`: whether the installation is open, closing and opening it, and confirming grants after a restore."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.base.paging import Page
from broker.identity.permissions import require_reader
from broker.revocation import closing
from broker.revocation.closing import InstallationState
from broker.web.api.common import Id, ReasonBody, Shown, Strict, WindowNow
from broker.web.api.grants import GrantShown, grants_shown
from broker.web.api.suspensions import CountsShown
from broker.web.api.verbs import At, verb

router = APIRouter(prefix="/installation", tags=["installation"])


class CloseBody(ReasonBody):
    """Why, and the dry run's counts for the report's comparison (`/suspensions/preview?what=installation`)."""

    expected: CountsShown | None = None


class ClosedShown(Shown):
    """How it stands now; `suspension` leads to the report on what became of each credential."""

    closed_at: datetime | None
    why: str
    held_before: datetime | None
    held: int
    live: int
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


class GrantsConfirmed(BaseModel):
    """How many grants this request confirmed, and how many still wait."""

    confirmed: int
    held: int


@verb(router, "GET", "", InstallationState)
def show_installation(at: At) -> InstallationState:
    """How the installation stands. For admins and auditors."""
    require_reader(at.caller)
    return closing.installation_state(at.tx)


@verb(router, "POST", "/close", ClosedShown, status=202, fresh=True)
def close_installation(at: At, body: CloseBody) -> ClosedShown:
    """Close everything: nothing is issued any more, everybody is signed out (you too), every lease ends. For admins."""
    expected = body.expected.model_dump() if body.expected is not None else None
    begun = closing.close_manually(at.tx, at.caller, body.reason, at.now, expected=expected)
    return ClosedShown.of(closing.installation_state(at.tx), suspension=begun.id)


@verb(router, "POST", "/open", InstallationState, fresh=True)
def open_installation(at: At, body: ReasonBody) -> InstallationState:
    """Open again; no session and no lease comes back, held grants stay held. For admins."""
    return closing.reopen(at.tx, at.caller, body.reason, at.now)


@verb(router, "GET", "/held-grants", Page[GrantShown])
def list_held_grants(at: At, window: WindowNow) -> Page[GrantShown]:
    """Grants that wait to be confirmed after a restore, oldest first. For admins and auditors."""
    held = closing.held_grants(at.tx, at.caller, after=window.cursor or "", limit=window.limit + 1)
    more = held[window.limit - 1].id if len(held) > window.limit else None
    return Page(items=grants_shown(at.tx, held[: window.limit]), next_cursor=more)


@verb(router, "POST", "/confirm-grants", GrantsConfirmed, fresh=True)
def confirm_grants(at: At, body: ConfirmBody) -> GrantsConfirmed:
    """Let held grants count again, 500 at most in a request; one's own wait for another admin. For admins."""
    done = closing.confirm_grants(at.tx, at.caller, at.now, vendor=body.vendor, grants=body.grants)
    return GrantsConfirmed(confirmed=done, held=closing.installation_state(at.tx).held)
