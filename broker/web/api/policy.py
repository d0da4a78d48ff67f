"""`/policy`: the rules in force, those before them, and proposing others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from broker.base.database import now as clock
from broker.base.errors import Forbidden, Invalid
from broker.identity.caller import Caller
from broker.identity.permissions import require_admin, sees_everything
from broker.models import PolicyInForce, PolicyRevision
from broker.registry import proposals
from broker.runtime import rulebook
from broker.web.api.common import CallerNow, FreshCaller, PartsNow, WindowNow
from broker.web.validation import Shown, Strict

router = APIRouter(prefix="/policy", tags=["policy"])
_LONGEST = 200_000


class RevisionShown(Shown):
    """A numbered revision; in force from `created_at` until the next one's."""

    number: int
    created_at: datetime
    proposed_by: str | None
    approved_by: str | None
    in_force: bool


class PolicyShown(Shown):
    """A revision with its text."""

    revision: int
    created_at: datetime
    proposed_by: str | None
    approved_by: str | None
    rules: str
    networks: str
    grammar: str


class Revisions(BaseModel):
    """A page of revisions."""

    items: list[RevisionShown]
    next_cursor: str | None


class RulesBody(Strict):
    """Rules and networks, as the text of their files."""

    rules: Annotated[str, Field(min_length=1, max_length=_LONGEST)]
    networks: Annotated[str, Field(max_length=_LONGEST)] = ""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "rules": "role:annotator, dataset:trials, deidentified, read, mfa<=15m ttl<=1h, allow\n",
                    "networks": "office, 203.0.113.0/24\n",
                }
            ]
        }
    )


class Checked(BaseModel):
    """The rules are well-formed; what would change against those in force."""

    rules: int
    added: list[str]
    removed: list[str]


class PolicyProposed(BaseModel):
    """The rules wait for a second admin."""

    id: str
    state: str
    lapses_at: datetime
    added: list[str]
    removed: list[str]


@router.get("", operation_id="show_policy")
def show_policy(caller: CallerNow, parts: PartsNow) -> PolicyShown:
    """The rules in force. For admins and auditors."""
    _may_see(caller)
    with parts.database.transaction() as tx:
        row = rulebook.in_force(tx)
        return PolicyShown.model_validate({"revision": row.number, **_values(row), **_texts(row)})


@router.get("/revisions", operation_id="list_policy_revisions")
def list_revisions(caller: CallerNow, parts: PartsNow, window: WindowNow) -> Revisions:
    """Every revision, newest first; the cursor is a revision's number. For admins and auditors."""
    _may_see(caller)
    with parts.database.transaction() as tx:
        query = select(PolicyRevision).order_by(PolicyRevision.number.desc()).limit(window.limit + 1)
        if window.cursor is not None:
            query = query.where(PolicyRevision.number < _number(window.cursor))
        rows = list(tx.scalars(query))
        current = tx.execute(select(PolicyInForce.revision)).scalar_one_or_none()
    kept = rows[: window.limit]
    items = [RevisionShown.model_validate({**_values(row), "in_force": row.number == current}) for row in kept]
    return Revisions(items=items, next_cursor=str(kept[-1].number) if len(rows) > window.limit else None)


@router.post("/check", operation_id="check_policy")
def check_policy(body: RulesBody, caller: CallerNow, parts: PartsNow) -> Checked:
    """Whether rules are well-formed, and what they would change. Nothing is put in force. For admins and auditors."""
    _may_see(caller)
    parsed = rulebook.check(body.rules, body.networks)
    with parts.database.transaction() as tx:
        current = parts.rulebook.at(tx, rulebook.in_force(tx).number)
    removed, added = current.diff(parsed) if current else ((), parsed.rules)
    return Checked(
        rules=len(parsed.rules), added=[str(rule) for rule in added], removed=[str(rule) for rule in removed]
    )


@router.post("/proposals", operation_id="propose_policy", status_code=202)
def propose_policy(body: RulesBody, caller: FreshCaller, parts: PartsNow) -> PolicyProposed:
    """Propose rules; they count from the moment a second admin approves. For admins."""
    require_admin(caller)
    checked = check_policy(body, caller, parts)
    details = {"rules": body.rules, "networks": body.networks}
    with parts.database.transaction() as tx:
        lifetime = timedelta(seconds=parts.settings.proposal_lifetime)
        proposal = proposals.propose(tx, "apply_policy", "policy", details, caller, clock(tx), lifetime=lifetime)
    return PolicyProposed(
        id=proposal.id,
        state=proposal.state,
        lapses_at=proposal.lapses_at,
        added=checked.added,
        removed=checked.removed,
    )


def _may_see(caller: Caller) -> None:
    if not sees_everything(caller):
        raise Forbidden(
            "Only admins and auditors can see the rules.", advice="`guestkey why` explains how the rules apply to you."
        )


def _values(row: PolicyRevision) -> dict[str, object]:
    return {
        "number": row.number,
        "created_at": row.applied_at,
        "proposed_by": row.proposed_by,
        "approved_by": row.approved_by,
    }


def _texts(row: PolicyRevision) -> dict[str, str]:
    return {"rules": row.rules, "networks": row.networks, "grammar": row.grammar}


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise Invalid("This cursor is not valid.", field="/query/cursor")
    return int(cursor)
