"""Each requirement alone: with everything else in order, exactly its reason denies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.policies import SliceFacts, VendorFacts, decide
from tests.policies.example import NOW, RULE, caller, codes, dataset, facts, grant, rules, slice_

SERVICE_RULE = "role:annotator, label:classification:internal, deidentified, read, ttl<=1h, allow"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"closed_at": NOW - timedelta(days=1)}, "closed"),
        ({"caller": caller(status="pending")}, "person_pending"),
        ({"caller": caller(status="suspended")}, "caller_suspended"),
        ({"caller": caller(status="refused")}, "caller_suspended"),
        ({"vendor": VendorFacts("v", "onboarding")}, "vendor_onboarding"),
        ({"vendor": VendorFacts("v", "suspended")}, "vendor_suspended"),
        ({"vendor": VendorFacts("v", "offboarded")}, "vendor_offboarded"),
        ({"vendor": VendorFacts("v", "a word nobody knows")}, "vendor_suspended"),
        ({"dataset": dataset(offered=False)}, "dataset_unknown"),
        ({"dataset": dataset(status="suspended")}, "dataset_suspended"),
        ({"dataset": dataset(status="retired")}, "dataset_retired"),
        ({"dataset": dataset(status="a word nobody knows")}, "dataset_suspended"),
        ({"dataset": dataset(retention_until=NOW)}, "retention_over"),
        ({"dataset": dataset(labels=frozenset())}, "no_rule"),
        ({"dataset": dataset(slices=(slice_(ready=False),))}, "slice_not_ready"),
        ({"dataset": dataset(slices=(slice_(changed=True),))}, "slice_changed"),
        ({"dataset": dataset(slices=(slice_(actions=frozenset()),))}, "action_not_served"),
        ({"dataset": dataset(slices=())}, "slice_unknown"),
        ({"dataset": dataset(slices=()), "slice": None}, "no_rule"),
        ({"grants": (grant(status="held"),)}, "grant_held"),
        ({"grants": (grant(starts_at=NOW + timedelta(seconds=1)),)}, "grant_not_started"),
        ({"grants": (grant(ends_at=NOW),)}, "grant_ended"),
        ({"grants": (grant(status="held", ends_at=NOW),)}, "no_grant"),
        ({"grants": (grant(holder="person:other"),)}, "no_grant"),
        ({"grants": (grant(slice="full"),)}, "slice_not_granted"),
        ({"grants": (grant(role="role:trainer"),)}, "no_rule"),
        ({"caller": caller(factor_at=None)}, "factor_missing"),
        ({"caller": caller(factor_at=None, factor_enrolled=False)}, "factor_not_enrolled"),
        ({"lifetime": 3601}, "lifetime_too_long"),
    ],
)
def test_each_missing_requirement_denies_with_its_own_reason(changes: dict[str, Any], code: str) -> None:
    assert codes(facts(**changes), rules(RULE)) == [code]
    decision = decide(facts(**changes), rules(RULE), NOW)
    assert (decision.bounds, decision.visible) == (None, code != "dataset_unknown")


@pytest.mark.parametrize(
    "changes",
    [
        {"lifetime": None},
        {"lifetime": 1},
        {"lifetime": 3600},
        {"dataset": dataset(retention_until=NOW + timedelta(seconds=1))},
        {"grants": (grant(starts_at=NOW),)},
        {"grants": (grant(holder="team:t"),)},
        {"grants": (grant(slice="deidentified"),), "slice": None},
        {"vendor": None, "caller": caller(vendor=None), "dataset": dataset(offered=False)},
    ],
)
def test_what_is_just_enough_is_allowed(changes: dict[str, Any]) -> None:
    assert codes(facts(**changes), rules(RULE)) == []


def test_caller_without_vendor_facts_is_not_taken_for_the_organisation() -> None:
    assert "vendor_unknown" in codes(facts(vendor=None), rules(RULE))


def test_person_who_bound_the_slice_or_chose_the_labels_reads_nothing() -> None:
    bound, labelled = dataset(slices=(slice_(bound_by="p"),)), dataset(labelled_by=frozenset({"p"}))
    for asked, code in ((bound, "bound_by_you"), (labelled, "labelled_by_you")):
        assert codes(facts(dataset=asked, caller=caller(person="p")), rules(RULE)) == [code]
        assert codes(facts(dataset=asked, caller=caller(person="other")), rules(RULE)) == []
        assert codes(facts(dataset=asked, caller=caller(person=None)), rules(RULE)) == []


def test_person_behind_a_service_counts_like_the_person() -> None:
    service = caller(subject="service:s", person="p")
    held = (grant(holder="service:s"),)
    own = dataset(slices=(slice_(bound_by="p"),))
    assert codes(facts(caller=service, grants=held), rules(SERVICE_RULE)) == []
    assert codes(facts(caller=service, grants=held, dataset=own), rules(SERVICE_RULE)) == ["bound_by_you"]


def test_grant_of_a_team_opens_nothing_to_a_service() -> None:
    service = caller(subject="service:s")
    assert codes(facts(caller=service, grants=(grant(holder="team:t"),)), rules(SERVICE_RULE)) == ["no_grant"]


def test_bounds_end_with_the_first_of_grant_and_retention() -> None:
    soon, later = NOW + timedelta(hours=1), NOW + timedelta(hours=2)
    for ends_at, retention_until in ((soon, later), (later, soon)):
        asked = facts(grants=(grant(ends_at=ends_at),), dataset=dataset(retention_until=retention_until))
        bounds = decide(asked, rules(RULE), NOW).bounds
        assert bounds is not None and bounds.not_after == soon


def test_of_two_grants_the_one_that_lasts_longest_is_taken() -> None:
    short, long = grant(id="z", max_lifetime=60), grant(id="a", max_lifetime=1800)
    for grants in ((short, long), (long, short)):
        decision = decide(facts(grants=grants, lifetime=60), rules(RULE), NOW)
        assert (decision.grant, decision.bounds and decision.bounds.max_lifetime) == ("a", 1800)


def test_of_two_rules_the_one_with_the_longest_lifetime_sets_the_bounds() -> None:
    short = RULE.replace("ttl<=1h", "ttl<=10m").replace("label:classification:internal", "dataset:trials")
    for lines in ((RULE, short), (short, RULE)):
        decision = decide(facts(lifetime=60), rules(*lines), NOW)
        assert decision.rules == (RULE,) and decision.bounds is not None and decision.bounds.max_lifetime == 3600
    stale = caller(factor_at=NOW - timedelta(hours=1))
    lax = short.replace("mfa<=15m ", "")
    decision = decide(facts(caller=stale, lifetime=60), rules(RULE, lax), NOW)
    assert decision.rules == (lax,) and decision.bounds is not None and decision.bounds.max_lifetime == 600


def test_of_several_rules_that_deny_the_nearest_to_allowing_gives_the_reasons() -> None:
    stale = caller(factor_at=None, address="192.0.2.1")
    stricter = RULE.replace("mfa<=15m", "mfa<=5m network:office").replace(
        "label:classification:internal", "dataset:trials"
    )
    for lines in ((RULE, stricter), (stricter, RULE)):
        assert codes(facts(caller=stale), rules(*lines)) == ["factor_missing"]
    deny = "role:annotator, dataset:trials, *, *, , deny"
    assert decide(facts(), rules(RULE, deny), NOW).rules == (deny,)


def test_rules_of_other_roles_slices_actions_and_datasets_open_nothing() -> None:
    others = [
        RULE.replace("role:annotator", "role:trainer"),
        RULE.replace("deidentified", "full"),
        RULE.replace("read", "write"),
        RULE.replace("label:classification:internal", "dataset:others"),
        RULE.replace("label:classification:internal", "label:classification:confidential"),
    ]
    both = dataset(slices=(slice_(actions=frozenset({"read", "write"})), SliceFacts("full", True, frozenset())))
    assert codes(facts(dataset=both), rules(*others)) == ["no_rule"]
    assert codes(facts(dataset=both), rules(*others, RULE)) == []


def test_now_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        decide(facts(), rules(RULE), NOW.replace(tzinfo=None))
