"""The gate: `decide(facts, rules, now)`. Pure: no clock, no database, no network.

It does not stop at the first failure: the decision names every unmet requirement, each with a code that never
changes its meaning (docs/policy.md lists them). Whatever is unknown or missing is a denial with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from ipaddress import IPv4Network, IPv6Network

from .conditions import ConditionResult, Ranges
from .decision import Bounds, Decision, Reason
from .facts import DatasetFacts, Facts, GrantFacts
from .reasons import reason
from .rules import Rule, Rules, Verdict


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way it could be allowed: a grant's role on one slice."""

    grant: GrantFacts
    slice: str
    reasons: tuple[Reason, ...]
    rule: Rule | None = None
    bounds: Bounds | None = None
    factor_max_age: int | None = None


def decide(facts: Facts, rules: Rules | None, now: datetime) -> Decision:
    """Whether the caller may do the action on the dataset at `now`, and within which bounds.

    Args:
        rules: the revision in force, or None where there is none or it cannot be read: everything is denied then.
        now: PostgreSQL's clock, read with the facts.
    """
    if now.tzinfo is None:
        raise ValueError("now must carry a time zone")
    passed: list[str] = []
    reasons = [
        *_record_check("open", _closed_reasons(facts), passed),
        *_record_check("caller", _caller_reasons(facts), passed),
        *_record_check("vendor", _vendor_reasons(facts), passed),
    ]
    revision = rules.revision if rules else None
    dataset = facts.dataset
    if dataset is None or (not dataset.offered and _vendor_of(facts) is not False):
        unknown = reason("dataset_unknown")
        return Decision(False, (*reasons, unknown), tuple(passed), (), revision, now, visible=False)
    reasons += _record_check("dataset", _dataset_reasons(facts, dataset, now), passed)
    grants, grant_reasons = _covering_grants(facts, now)
    reasons += _record_check("grant", grant_reasons, passed)
    if rules is None:
        reasons.append(reason("rules_missing"))
        return Decision(False, tuple(reasons), tuple(passed), (), None, now)
    attempts = [
        _attempt(facts, dataset, grant, name, rules, now) for grant in grants for name in _slices_to_try(facts, grant)
    ]
    return _conclude(facts, rules, attempts, reasons, passed, now)


def _conclude(
    facts: Facts,
    rules: Rules,
    attempts: list[_Attempt],
    reasons: list[Reason],
    passed: list[str],
    now: datetime,
) -> Decision:
    good = [attempt for attempt in attempts if not attempt.reasons]
    chosen: _Attempt | None = None
    if len({attempt.slice for attempt in good}) > 1:
        names = ", ".join(sorted({attempt.slice for attempt in good}))
        reasons.append(reason("slice_unnamed", slices=names))
    elif good:
        # The longest bound wins; the grant's id breaks ties, so that equal questions get equal answers.
        chosen = max(good, key=lambda attempt: (_seconds_granted(attempt, now), attempt.grant.id))
        passed += ["rule", "conditions"]
    elif attempts:
        chosen = min(attempts, key=lambda attempt: (len(attempt.reasons), attempt.slice, attempt.grant.id))
        reasons += chosen.reasons
    allowed = chosen is not None and not reasons and chosen.bounds is not None
    if not allowed and not reasons:
        reasons.append(_no_rule(facts))
    factor_only = bool(reasons) and all(reason.factor for reason in reasons)
    return Decision(
        allowed=allowed,
        reasons=tuple(reasons),
        passed=tuple(passed),
        rules=(str(chosen.rule),) if chosen and chosen.rule else (),
        revision=rules.revision,
        decided_at=now,
        bounds=chosen.bounds if allowed and chosen else None,
        grant=chosen.grant.id if chosen else None,
        factor_needed=chosen.factor_max_age if factor_only and chosen else None,
    )


def _seconds_granted(attempt: _Attempt, now: datetime) -> float:
    if attempt.bounds is None:
        return 0.0
    return min(float(attempt.bounds.max_lifetime), (attempt.bounds.not_after - now).total_seconds())


def _record_check(name: str, reasons: list[Reason], passed: list[str]) -> list[Reason]:
    if not reasons:
        passed.append(name)
    return reasons


def _vendor_of(facts: Facts) -> str | bool | None:
    """The caller's vendor; False for the organisation's own; None if nobody knows."""
    if facts.caller is None:
        return None
    return facts.caller.vendor or False


def _closed_reasons(facts: Facts) -> list[Reason]:
    if facts.closed_at is None:
        return []
    return [reason("closed")]


def _caller_reasons(facts: Facts) -> list[Reason]:
    caller = facts.caller
    if caller is None or not caller.subject.startswith(("person:", "service:")):
        return [reason("caller_unknown")]
    if caller.status == "active":
        return []
    if caller.status == "pending":
        return [reason("person_pending")]
    return [reason("caller_suspended")]


def _vendor_reasons(facts: Facts) -> list[Reason]:
    if _vendor_of(facts) is False:
        return []
    vendor = facts.vendor
    if vendor is None or facts.caller is None or vendor.id != facts.caller.vendor:
        return [reason("vendor_unknown")]
    if vendor.status == "active":
        return []
    known = vendor.status if vendor.status in ("onboarding", "suspended", "offboarded") else "suspended"
    return [reason(f"vendor_{known}")]


def _dataset_reasons(facts: Facts, dataset: DatasetFacts, now: datetime) -> list[Reason]:
    reasons = []
    if _person_behind(facts) in dataset.labelled_by:
        reasons.append(reason("labelled_by_you"))
    if dataset.status != "active":
        word = dataset.status if dataset.status in ("suspended", "retired") else "suspended"
        reasons.append(reason(f"dataset_{word}"))
    if dataset.retention_until is not None and now >= dataset.retention_until:
        reasons.append(reason("retention_over"))
    return reasons


def _person_behind(facts: Facts) -> str:
    """The person who asks, or who knows the secret of the service that does."""
    return (facts.caller.person if facts.caller else None) or ""


def _covering_grants(facts: Facts, now: datetime) -> tuple[list[GrantFacts], list[Reason]]:
    """Grants that hold at `now`, or why none does."""
    named = [grant for grant in facts.grants if _is_held_by_caller(grant, facts)]
    held = [grant for grant in named if grant.status == "active"]
    covering = [grant for grant in held if grant.starts_at <= now < grant.ends_at]
    if covering:
        return covering, []
    if any(grant.status == "held" and grant.starts_at <= now < grant.ends_at for grant in named):
        return [], [reason("grant_held")]
    coming = sorted(grant.starts_at for grant in held if grant.starts_at > now)
    if coming:
        return [], [reason("grant_not_started", opens_at=coming[0])]
    if held:
        return [], [reason("grant_ended")]
    return [], [reason("no_grant")]


def _is_held_by_caller(grant: GrantFacts, facts: Facts) -> bool:
    """Whether the grant's holder can be the caller; whether a team has it as a member was read with the facts."""
    if facts.caller is None or not grant.role.startswith("role:"):
        return False
    if grant.holder.startswith("team:"):
        return facts.caller.subject.startswith("person:")
    return grant.holder == facts.caller.subject


def _slices_to_try(facts: Facts, grant: GrantFacts) -> list[str]:
    if facts.slice is not None:
        return [facts.slice]
    if grant.slice is not None:
        return [grant.slice]
    return sorted(slice_.name for slice_ in facts.dataset.slices) if facts.dataset else []


def _attempt(
    facts: Facts, dataset: DatasetFacts, grant: GrantFacts, name: str, rules: Rules, now: datetime
) -> _Attempt:
    reasons = _slice_reasons(facts, dataset, grant, name)
    verdict = rules.evaluate(grant.role, name, facts, now)
    rule, held, rule_reasons = _decisive_rule(facts, verdict)
    reasons += rule_reasons
    ages = [result.factor_max_age for result in held if result.factor_max_age is not None]
    lifetime = _max_lifetime(held, grant)
    if facts.lifetime is not None and facts.lifetime <= 0:
        reasons.append(reason("lifetime_invalid"))
    if not reasons and lifetime is not None and facts.lifetime is not None and facts.lifetime > lifetime:
        reasons.append(reason("lifetime_too_long", asked=facts.lifetime, allowed=lifetime))
    if reasons or lifetime is None:
        return _Attempt(grant, name, tuple(reasons or [_no_rule(facts)]), rule, None, min(ages, default=None))
    ends = [moment for moment in (grant.ends_at, dataset.retention_until, *(r.not_after for r in held)) if moment]
    bounds = Bounds(name, facts.action, lifetime, min(ends), _networks(held))
    return _Attempt(grant, name, (), rule, bounds)


def _networks(held: tuple[ConditionResult, ...]) -> tuple[str, ...]:
    """The ranges that every condition on networks holds the caller to; of two that overlap, one lies in the other."""
    bounds = [result.networks for result in held if result.networks]
    common = reduce(_intersection, bounds) if bounds else ()
    return tuple(sorted(map(str, common)))


def _intersection(ones: Ranges, others: Ranges) -> Ranges:
    return tuple({max(one, other, key=_prefix_length) for one in ones for other in others if one.overlaps(other)})


def _prefix_length(range_: IPv4Network | IPv6Network) -> int:
    return range_.prefixlen


def _max_lifetime(held: tuple[ConditionResult, ...], grant: GrantFacts) -> int | None:
    bounds = [result.max_lifetime for result in held if result.max_lifetime is not None]
    if not bounds:
        return None
    return min([*bounds, grant.max_lifetime] if grant.max_lifetime is not None else bounds)


def _slice_reasons(facts: Facts, dataset: DatasetFacts, grant: GrantFacts, name: str) -> list[Reason]:
    slice_ = next((slice_ for slice_ in dataset.slices if slice_.name == name), None)
    if slice_ is None:
        return [reason("slice_unknown")]
    reasons = []
    if slice_.bound_by is not None and slice_.bound_by == _person_behind(facts):
        reasons.append(reason("bound_by_you", name=name))
    if grant.slice is not None and grant.slice != name:
        reasons.append(reason("slice_not_granted", granted=grant.slice))
    if slice_.changed:
        reasons.append(reason("slice_changed"))
    elif not slice_.ready:
        reasons.append(reason("slice_not_ready"))
    if facts.action not in slice_.actions:
        reasons.append(reason("action_not_served", action=facts.action))
    return reasons


def _decisive_rule(facts: Facts, verdict: Verdict) -> tuple[Rule | None, tuple[ConditionResult, ...], list[Reason]]:
    """The rule that speaks for the caller, what its conditions said, and what keeps it from allowing."""
    if verdict.denying:
        rule = verdict.denying[0]
        return rule, (), [reason("rule_denies", rule=str(rule))]
    if verdict.allowed and verdict.allowing:
        held_of = dict(verdict.candidates)
        rule = max(verdict.allowing, key=lambda rule: (_longest_lifetime(held_of[rule]), -rule.line))
        return rule, held_of[rule], []
    if not verdict.candidates:
        return None, (), [_no_rule(facts)]
    rule, held = min(verdict.candidates, key=lambda pair: (_count_unmet(pair[1]), pair[0].line))
    unmet = [result.reason for result in held if result.reason is not None]
    return rule, held, unmet or [_no_rule(facts)]


def _longest_lifetime(held: tuple[ConditionResult, ...]) -> int:
    return min((result.max_lifetime for result in held if result.max_lifetime is not None), default=0)


def _count_unmet(held: tuple[ConditionResult, ...]) -> int:
    return sum(result.reason is not None for result in held)


def _no_rule(facts: Facts) -> Reason:
    return reason("no_rule", action=facts.action)
