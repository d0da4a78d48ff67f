"""What a grant would be worth: the gate asked beforehand, at request and at approval, about somebody not asking now.

What passes by itself or with a second factor (time of day, network, freshness) does not speak against a grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import select

from broker.base.database import Transaction
from broker.gate.facts import Ask, Gathered, gather
from broker.identity.caller import Caller
from broker.models import Dataset, PolicyInForce, Slice
from broker.policies import ConditionResult, Decision, Facts, GrantFacts, Reason, Rule, decide
from broker.runtime.rulebook import Rulebook

_ACTIONS = ("read", "write")


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
    revision = tx.execute(select(PolicyInForce.revision)).scalar_one_or_none()
    rules = rulebook.at(tx, revision)
    if rules is None:
        return []
    allowed = {rule.role for rule in rules.for_dataset(slug, labels) if rule.effect == "allow"}
    return sorted(role.removeprefix("role:") for role in allowed)


def slices_without_rule(tx: Transaction, rulebook: Rulebook, of: Dataset, slices: Sequence[Slice]) -> list[str]:
    """The names of a dataset's slices of which no rule in force lets any role do what they are for."""
    rules = rulebook.at(tx, tx.execute(select(PolicyInForce.revision)).scalar_one_or_none())
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
