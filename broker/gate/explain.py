"""Explaining: may X do Y on Z now, and if not why; and who may reach this dataset, through what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Forbidden, NotFound
from broker.gate.facts import Ask, gather
from broker.identity.caller import Caller
from broker.models import Dataset, Grant, Passkey, Person, Request, TeamMember, TotpFactor
from broker.policies import Decision, Reason, Rule, decide
from broker.registry.naming import names_of
from broker.runtime.parts import Parts
from broker.runtime.rulebook import in_force


@dataclass(frozen=True, slots=True)
class Reach:
    """One way to a dataset: a holder, through a grant, by a rule. `holder` is prefixed; `members` for teams."""

    grant: str
    holder: str
    holder_name: str
    role: str
    ends_at: datetime
    members: int
    rules: tuple[Rule, ...]


def explain_access(
    parts: Parts, tx: Transaction, caller: Caller, ask: Ask, *, person_id: str | None = None, proven: bool = False
) -> Decision:
    """The decision for the caller, or for another person, as it would be now; issues and records nothing.

    Args:
        proven: as it would be had they proven a second factor this moment.

    Raises:
        Forbidden: asking about somebody else takes an admin, an auditor or the dataset's owner.
        NotFound: there is no such person.
    """
    if person_id is not None and person_id != caller.id:
        if not may_ask_about_others(tx, caller, ask.dataset):
            raise Forbidden("Only an admin, an auditor or the dataset's owner can ask about other people.")
        caller = _other(tx, person_id)
    if proven:
        caller = replace(caller, factor_at=clock(tx), factor_enrolled=True)
    gathered = gather(tx, caller, ask, locking=False)
    decision = decide(gathered.facts, parts.rulebook.at(tx, gathered.revision), gathered.now)
    waiting = _pending(tx, caller, ask.dataset, gathered.now) if decision.visible else None
    return replace(decision, reasons=tuple(_as_asked(reason, waiting) for reason in decision.reasons))


def pending_request(tx: Transaction, caller: Caller, dataset: str, *, person_id: str | None = None) -> Request | None:
    """The newest request that waits, by which the caller or another person would get a role on a dataset.

    About others it answers whom `why` answers; nobody else learns anything by it.
    """
    if person_id is not None and person_id != caller.id:
        if not may_ask_about_others(tx, caller, dataset):
            return None
        caller = _other(tx, person_id)
    return _pending(tx, caller, dataset, clock(tx))


def _pending(tx: Transaction, caller: Caller, dataset: str, now: datetime) -> Request | None:
    teams = select(TeamMember.team_id).where(TeamMember.person_id == caller.id)
    holder = (
        (func.coalesce(Request.for_person_id, Request.person_id) == caller.id)
        & Request.team_id.is_(None)
        & Request.service_id.is_(None)
    )
    query = (
        select(Request)
        .join(Dataset, Dataset.id == Request.dataset_id)
        .where(
            (Dataset.id == dataset) | (Dataset.slug == dataset),
            Request.state == "pending",
            Request.lapses_at > now,
            holder | Request.team_id.in_(teams) | (Request.service_id == caller.id),
        )
    )
    return tx.scalars(query.order_by(Request.id.desc()).limit(1)).one_or_none()


def _as_asked(reason: Reason, waiting: Request | None) -> Reason:
    """A missing grant, as it reads where one was asked for already."""
    if waiting is None or reason.code not in ("no_grant", "grant_ended"):
        return reason
    advice = f"A request for the role {waiting.role} is waiting for a decision: {waiting.id}."
    return replace(reason, advice=advice, who="someone")


def who_has_access(parts: Parts, tx: Transaction, caller: Caller, dataset: str) -> list[Reach]:
    """Every grant that holds on a dataset now, and the rules that let its role in.

    Raises:
        NotFound: there is no such dataset for this caller.
        Forbidden: this takes an admin, an auditor or the dataset's owner.
    """
    if not may_ask_about_others(tx, caller, dataset):
        raise Forbidden("Only an admin, an auditor or the dataset's owner can see who has access to a dataset.")
    record = tx.scalars(select(Dataset).where((Dataset.id == dataset) | (Dataset.slug == dataset))).one_or_none()
    if record is None:
        raise NotFound("There is no such dataset.")
    now = clock(tx)
    rules = parts.rulebook.at(tx, in_force(tx).number)
    reaching = rules.for_dataset(record.slug, record.labels) if rules else ()
    grants = tx.scalars(
        select(Grant)
        .where(Grant.dataset_id == record.id, Grant.revoked_at.is_(None), Grant.ends_at > now)
        .order_by(Grant.id)
    ).all()
    return [_reach(tx, grant, reaching) for grant in grants]


def may_ask_about_others(tx: Transaction, caller: Caller, dataset: str) -> bool:
    """Whether the caller is an admin, an auditor, or the owner of this dataset."""
    if caller.is_admin or caller.is_auditor:
        return True
    owner = tx.execute(
        select(Dataset.owner_id).where((Dataset.id == dataset) | (Dataset.slug == dataset))
    ).scalar_one_or_none()
    return owner is not None and caller.kind == "person" and owner == caller.id


def _other(tx: Transaction, person_id: str) -> Caller:
    person = tx.get(Person, person_id)
    if person is None:
        raise NotFound("There is no such person.")
    totp = select(TotpFactor.person_id).where(TotpFactor.person_id == person_id, TotpFactor.confirmed_at.is_not(None))
    enrolled = tx.execute(totp.union_all(select(Passkey.person_id).where(Passkey.person_id == person_id))).first()
    return Caller.not_asking(person, clock(tx), factor_enrolled=enrolled is not None)


def _reach(tx: Transaction, grant: Grant, reaching: tuple[Rule, ...]) -> Reach:
    members = 1
    if grant.team_id:
        members = tx.execute(select(func.count()).where(TeamMember.team_id == grant.team_id)).scalar_one()
    name = names_of(tx, [grant.holder_id]).get(grant.holder_id, "")
    through = tuple(
        rule for rule in reaching if rule.role == f"role:{grant.role}" and grant.slice_name in (None, rule.slice)
    )
    return Reach(grant.id, grant.holder, name, grant.role, grant.ends_at, members, through)
