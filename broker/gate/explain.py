"""Asking the gate without acting: may X do Y on Z now, and if not why; who may reach a dataset; what a grant is worth.

The last is asked at request and at approval, about somebody not asking now: what passes by itself or with a second
factor (time of day, network, freshness) does not speak against a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select

from broker.base.database import Transaction, clock
from broker.base.errors import Forbidden, NotFound
from broker.gate.facts import Ask, Gathered, gather
from broker.identity.caller import Caller
from broker.identity.invitations import has_factor
from broker.models import Dataset, Grant, Person, Request, Slice, TeamMember
from broker.policies import ConditionResult, Decision, Facts, GrantFacts, Reason, Rule, decide
from broker.registry.naming import names_of
from broker.runtime.parts import Parts
from broker.runtime.rulebook import Rulebook, in_force, number_in_force

_ACTIONS = ("read", "write")


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
    for_nobody_else = Request.team_id.is_(None) & Request.service_id.is_(None)
    holder = for_nobody_else & (func.coalesce(Request.for_person_id, Request.person_id) == caller.id)
    asked = holder | Request.team_id.in_(teams) | (Request.service_id == caller.id)
    query = select(Request).join(Dataset, Dataset.id == Request.dataset_id)
    query = query.where(_named(dataset), asked, Request.state == "pending", Request.lapses_at > now)
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
    record = tx.scalars(select(Dataset).where(_named(dataset))).one_or_none()
    if record is None:
        raise NotFound("There is no such dataset.")
    now = clock(tx)
    rules = parts.rulebook.at(tx, in_force(tx).number)
    reaching = rules.for_dataset(record.slug, record.labels) if rules else ()
    live = (Grant.dataset_id == record.id, Grant.revoked_at.is_(None), Grant.ends_at > now)
    grants = tx.scalars(select(Grant).where(*live).order_by(Grant.id)).all()
    return [_reach(tx, grant, reaching) for grant in grants]


def may_ask_about_others(tx: Transaction, caller: Caller, dataset: str) -> bool:
    """Whether the caller is an admin, an auditor, or the owner of this dataset."""
    if caller.is_admin or caller.is_auditor:
        return True
    owner = tx.execute(select(Dataset.owner_id).where(_named(dataset))).scalar_one_or_none()
    return owner is not None and caller.kind == "person" and owner == caller.id


def _named(dataset: str) -> ColumnElement[bool]:
    return (Dataset.id == dataset) | (Dataset.slug == dataset)


def _other(tx: Transaction, person_id: str) -> Caller:
    person = tx.get(Person, person_id)
    if person is None:
        raise NotFound("There is no such person.")
    return Caller.not_asking(person, clock(tx), factor_enrolled=has_factor(tx, person_id))


def _reach(tx: Transaction, grant: Grant, reaching: tuple[Rule, ...]) -> Reach:
    members = 1
    if grant.team_id:
        members = tx.execute(select(func.count()).where(TeamMember.team_id == grant.team_id)).scalar_one()
    name = names_of(tx, [grant.holder_id]).get(grant.holder_id, "")
    through = tuple(
        rule for rule in reaching if rule.role == f"role:{grant.role}" and grant.slice_name in (None, rule.slice)
    )
    return Reach(grant.id, grant.holder, name, grant.role, grant.ends_at, members, through)


@dataclass(frozen=True, slots=True)
class ProposedGrant:
    """A grant that does not exist yet: who would hold it, and what it would say."""

    holder: str
    role: str
    slice: str | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """What the gate would say. `lasting` speaks against the grant; `unmet_now` includes what will pass.

    `longest_lifetime`: the longest one of these rules lets a credential live, in seconds; None where none sets a bound.

    `conditions`: for each of the rules every condition as written, and why it is not met now (None: it is).
    """

    gathered: Gathered
    lasting: tuple[Reason, ...]
    unmet_now: tuple[Reason, ...]
    rules: tuple[Rule, ...]
    conditions: tuple[tuple[tuple[str, Reason | None], ...], ...]
    revision: int | None
    longest_lifetime: int | None


def simulate(
    tx: Transaction,
    rulebook: Rulebook,
    party: Caller,
    dataset_id: str,
    prospect: ProposedGrant,
    *,
    locking: bool = True,
) -> Simulation:
    """Ask the gate about a prospective grant, with the rows it rests on locked until commit.

    Args:
        party: the person or service that would use it; for a team, whoever asks for it.
    """
    gathered = gather(tx, party, Ask(dataset=dataset_id, slice=prospect.slice), locking=locking)
    rules = rulebook.at(tx, gathered.revision)
    decisions = [
        decide(_with_grant(gathered, prospect, action), rules, gathered.now)
        for action in _ACTIONS
        if _served(gathered, prospect.slice, action)
    ] or [decide(_with_grant(gathered, prospect, "read"), rules, gathered.now)]
    best = min(decisions, key=lambda decision: len(_lasting(decision)))
    slug = str(gathered.dataset["slug"]) if gathered.dataset else ""
    labels = gathered.dataset["labels"] if gathered.dataset else ()
    reaching = rules.for_dataset(slug, labels) if rules else ()
    # A rule for slices this dataset does not have says nothing to whoever decides.
    speaking = tuple(
        rule for rule in reaching if rule.role == f"role:{prospect.role}" and any(map(rule.applies_to, gathered.slices))
    )
    checked = [rules.check_conditions(rule, gathered.facts, gathered.now) for rule in speaking] if rules else []
    return Simulation(
        gathered=gathered,
        lasting=_lasting(best),
        unmet_now=best.reasons,
        rules=speaking,
        conditions=tuple(tuple((word, held.reason) for word, held in conditions) for conditions in checked),
        revision=gathered.revision,
        longest_lifetime=_longest_lifetime(speaking, checked, prospect.slice),
    )


def _longest_lifetime(
    speaking: Sequence[Rule], checked: Sequence[tuple[tuple[str, ConditionResult], ...]], slice_name: str | None
) -> int | None:
    """The longest that one of the rules that allow something lets a credential live."""
    longest = [
        min((held.max_lifetime for _, held in conditions if held.max_lifetime is not None), default=None)
        for rule, conditions in zip(speaking, checked, strict=True)
        if rule.effect == "allow" and (slice_name is None or rule.allows(slice_name))
    ]
    return max((seconds for seconds in longest if seconds is not None), default=None)


def roles_reaching(tx: Transaction, rulebook: Rulebook, slug: str, labels: list[str]) -> list[str]:
    """The roles that some rule in force allows something on a dataset."""
    rules = rulebook.at(tx, number_in_force(tx))
    if rules is None:
        return []
    allowed = {rule.role for rule in rules.for_dataset(slug, labels) if rule.effect == "allow"}
    return sorted(role.removeprefix("role:") for role in allowed)


def slices_without_rule(tx: Transaction, rulebook: Rulebook, of: Dataset, slices: Sequence[Slice]) -> list[str]:
    """The names of a dataset's slices of which no rule in force lets any role do what they are for."""
    rules = rulebook.at(tx, number_in_force(tx))
    reaching = rules.for_dataset(of.slug, of.labels) if rules else ()
    return [
        slice_.name
        for slice_ in slices
        if not any(rule.allows(slice_.name) and set(rule.actions) & set(slice_.actions) for rule in reaching)
    ]


def _with_grant(gathered: Gathered, prospect: ProposedGrant, action: str) -> Facts:
    grant = GrantFacts(
        id="prospect",
        role=f"role:{prospect.role}",
        holder=prospect.holder,
        starts_at=gathered.now,
        ends_at=gathered.now + timedelta(days=1),
        slice=prospect.slice,
    )
    return replace(gathered.facts, grants=(grant,), action=action, slice=prospect.slice)


def _lasting(decision: Decision) -> tuple[Reason, ...]:
    return tuple(reason for reason in decision.reasons if not reason.temporary)


def _served(gathered: Gathered, slice_name: str | None, action: str) -> bool:
    dataset = gathered.facts.dataset
    if dataset is None:
        return False
    return any(action in slice_.actions for slice_ in dataset.slices if slice_name in (None, slice_.name))
