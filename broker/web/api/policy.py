"""`/policy`: the rules in force, those before them, and proposing others."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from broker.base.errors import Invalid
from broker.base.paging import Page
from broker.identity.nouns import Display
from broker.identity.permissions import require_admin, require_sees_rules
from broker.models import PolicyRevision
from broker.registry import proposals
from broker.runtime import rulebook
from broker.web.api.common import At, ProposalMade, Shown, Strict, WindowNow, example, verb

router = APIRouter(prefix="/policy", tags=["policy"])
_LONGEST = 200_000


class RevisionShown(Shown):
    """A numbered revision; in force from `created_at` until the next one's."""

    number: int
    created_at: Annotated[datetime, Field(validation_alias="applied_at")]
    proposed_by: str | None
    approved_by: str | None
    in_force: bool


class PolicyShown(Shown):
    """A revision with its text."""

    revision: Annotated[int, Field(validation_alias="number")]
    created_at: Annotated[datetime, Field(validation_alias="applied_at")]
    proposed_by: str | None
    approved_by: str | None
    rules: str
    networks: str
    grammar: str


class RulesBody(Strict):
    """Rules and networks, as the text of their files."""

    rules: Annotated[str, Field(min_length=1, max_length=_LONGEST)]
    networks: Annotated[str, Field(max_length=_LONGEST)] = ""

    model_config = example(
        rules="role:annotator, dataset:trials, deidentified, read, mfa<=15m ttl<=1h, allow\n",
        networks="office, 203.0.113.0/24\n",
    )


class RulesChecked(BaseModel):
    """The rules are well-formed; what would change against those in force."""

    rules: int
    added: list[str]
    removed: list[str]


class PolicyProposed(ProposalMade):
    """The rules wait for a second admin."""

    added: list[str]
    removed: list[str]


@verb(router, "GET", "", PolicyShown)
def show_policy(at: At) -> PolicyRevision:
    """The rules in force. For admins and auditors."""
    require_sees_rules(at.caller)
    return rulebook.in_force(at.tx)


_REVISIONS = Display(
    columns="revision=number, since=created_at@, proposed by=proposed_by!, approved by=approved_by",
    none="No policy is in force yet.",
    command="policy revisions",
)


@verb(router, "GET", "/revisions", Page[RevisionShown], listed=_REVISIONS.described("revision"))
def list_policy_revisions(at: At, window: WindowNow) -> Page[RevisionShown]:
    """Every revision, newest first; the cursor is a revision's number. For admins and auditors."""
    require_sees_rules(at.caller)
    before = _number(window.cursor) if window.cursor is not None else None
    rows = rulebook.revisions(at.tx, window.limit + 1, before=before)
    current = rulebook.number_in_force(at.tx)
    kept = rows[: window.limit]
    items = [RevisionShown.of(row, in_force=row.number == current) for row in kept]
    return Page(items=items, next_cursor=str(kept[-1].number) if len(rows) > window.limit else None)


@verb(router, "POST", "/check", RulesChecked)
def check_policy(at: At, body: RulesBody) -> RulesChecked:
    """Whether rules are well-formed, and what they would change. Nothing is put in force. For admins and auditors."""
    require_sees_rules(at.caller)
    parsed = rulebook.check(body.rules, body.networks)
    current = at.parts.rulebook.at(at.tx, rulebook.in_force(at.tx).number)
    removed, added = current.diff(parsed) if current else ((), parsed.rules)
    return RulesChecked(rules=len(parsed.rules), added=list(map(str, added)), removed=list(map(str, removed)))


@verb(router, "POST", "/proposals", PolicyProposed, status=202, fresh=True)
def propose_policy(at: At, body: RulesBody) -> PolicyProposed:
    """Propose rules; they count from the moment a second admin approves. For admins."""
    require_admin(at.caller)
    checked = check_policy(at, body)
    details = {"rules": body.rules, "networks": body.networks}
    made = proposals.propose(at.tx, "apply_policy", "policy", details, at.caller, at.now, lifetime=at.lifetime)
    return PolicyProposed.of(made, added=checked.added, removed=checked.removed)


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise Invalid("This cursor is not valid.", field="/query/cursor")
    return int(cursor)
