"""Each condition of the vocabulary: when it is met, what it bounds, and what counts where a fact is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.policies import Rules, RulesInvalid, decide
from tests.policies.example import GRAMMAR, NOW, RULE, caller, codes, facts, grant, rules

ALLOW = "role:annotator, dataset:trials, deidentified, read, {} ttl<=24h, allow"
DENY = "role:annotator, dataset:trials, deidentified, read, {}, deny"
LONG = (grant(starts_at=NOW - timedelta(days=30), ends_at=NOW + timedelta(days=30)),)


@pytest.mark.parametrize(("age", "fresh"), [(-6, False), (-5, True), (0, True), (900, True), (901, False)])
def test_second_factor_counts_from_5_s_ahead_to_its_longest_age(age: int, fresh: bool) -> None:
    found = codes(facts(caller=caller(factor_at=NOW - timedelta(seconds=age))), rules(RULE))
    assert found == ([] if fresh else ["factor_stale"])


@pytest.mark.parametrize(
    ("factor_at", "enrolled"), [(None, False), (None, True), (NOW - timedelta(hours=1), True), (NOW, True)]
)
def test_a_missing_factor_asks_for_one_as_fresh_as_the_rule_says(factor_at: datetime | None, enrolled: bool) -> None:
    decision = decide(facts(caller=caller(factor_at=factor_at, factor_enrolled=enrolled)), rules(RULE), NOW)
    assert decision.factor_needed == (None if decision.allowed else 900)
    assert decision.allowed == (factor_at == NOW)


@pytest.mark.parametrize(("factor_at", "enrolled"), [(None, False), (None, True)])
def test_deny_for_a_fresh_factor_applies_where_none_is_known(factor_at: datetime | None, enrolled: bool) -> None:
    lax, deny = ALLOW.format("").replace(" ttl", "ttl"), DENY.format("mfa<=15m")
    asks = caller(factor_at=factor_at, factor_enrolled=enrolled)
    assert codes(facts(caller=asks), rules(lax, deny)) == ["rule_denies"]
    service = facts(caller=caller(subject="service:s"), grants=(grant(holder="service:s"),))
    assert codes(service, rules(lax, deny)) == ["rule_denies"]
    stale = facts(caller=caller(factor_at=NOW - timedelta(hours=1)))
    assert codes(stale, rules(lax, deny)) == []


def test_service_never_meets_a_rule_that_asks_for_a_factor() -> None:
    service = caller(subject="service:s", factor_at=NOW)
    assert codes(facts(caller=service, grants=(grant(holder="service:s"),)), rules(RULE)) == ["factor_impossible"]


@pytest.mark.parametrize("name", ["evidence:soc2", "agreement:baa"])
def test_evidence_is_never_met_and_a_deny_for_it_always_applies(name: str) -> None:
    assert codes(facts(), rules(ALLOW.format(name))) == [f"{name.partition(':')[0]}_missing"]
    assert codes(facts(), rules(RULE, DENY.format(name))) == ["rule_denies"]


# 2026-03-02 was a Monday. Auckland was 13 hours ahead of UTC, Berlin one.
@pytest.mark.parametrize(
    ("hours", "at", "closes"),
    [
        ("08-20/Europe/Berlin", "2026-03-02T07:00", "2026-03-02T19:00"),
        ("08-20/Europe/Berlin", "2026-03-02T06:59", None),
        ("08-20/Europe/Berlin", "2026-03-02T18:59", "2026-03-02T19:00"),
        ("08-20/Europe/Berlin", "2026-03-02T19:00", None),
        ("08-24/Europe/Berlin", "2026-03-02T22:59", "2026-03-02T23:00"),
        ("08-24/Europe/Berlin", "2026-03-02T23:00", None),
        ("00-24/Europe/Berlin", "2026-03-02T23:00", "2026-03-03T23:00"),
        ("mon-fri@08-20/Europe/Berlin", "2026-02-27T12:00", "2026-02-27T19:00"),
        ("mon-fri@08-20/Europe/Berlin", "2026-02-28T12:00", None),
        ("mon-fri@08-20/Europe/Berlin", "2026-03-01T12:00", None),
        ("tue-thu@08-20/Europe/Berlin", "2026-03-02T12:00", None),
        ("tue-thu@08-20/Europe/Berlin", "2026-03-03T12:00", "2026-03-03T19:00"),
        ("tue-thu@08-20/Europe/Berlin", "2026-03-05T12:00", "2026-03-05T19:00"),
        ("tue-thu@08-20/Europe/Berlin", "2026-03-06T12:00", None),
        ("sat-sat@08-20/Europe/Berlin", "2026-02-28T12:00", "2026-02-28T19:00"),
        ("mon-fri@08-20/Pacific/Auckland", "2026-03-01T20:00", "2026-03-02T07:00"),
        ("mon-fri@08-20/Pacific/Auckland", "2026-03-06T20:00", None),
    ],
)
def test_hours_are_open_on_their_days_in_their_zone_and_bound_the_credential(
    hours: str, at: str, closes: str | None
) -> None:
    now = datetime.fromisoformat(at).replace(tzinfo=UTC)
    decision = decide(facts(grants=LONG), rules(ALLOW.format(f"hours:{hours}")), now)
    assert decision.allowed == (closes is not None), decision.reasons
    if closes is not None:
        assert decision.bounds is not None
        assert decision.bounds.not_after == datetime.fromisoformat(closes).replace(tzinfo=UTC)


def test_closed_hours_say_when_they_open_next() -> None:
    friday_evening = datetime(2026, 2, 27, 20, 0, tzinfo=UTC)
    decision = decide(facts(grants=LONG), rules(ALLOW.format("hours:mon-fri@08-20/Europe/Berlin")), friday_evening)
    assert decision.reasons[0].opens_at == datetime(2026, 3, 2, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        "hours:08-08/UTC",
        "hours:08-25/UTC",
        "hours:24-24/UTC",
        "hours:fri-mon@08-20/UTC",
        "hours:mon@08-20/UTC",
        "ttl<=0h",
        "ttl<=1441m",
        "network:Office",
        "evidence:",
    ],
)
def test_windows_lifetimes_and_names_that_mean_nothing_are_refused(wrong: str) -> None:
    with pytest.raises(RulesInvalid):
        rules(DENY.format(wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        "office",
        "office, 10.0.0.0/8, more",
        "Office, 10.0.0.0/8",
        "office, 10.0.0.1/8",
        "office, nowhere",
        "\u00f6, ::/0",
    ],
)
def test_one_wrong_network_refuses_the_whole(wrong: str) -> None:
    with pytest.raises(RulesInvalid) as refused:
        Rules.parse(GRAMMAR, RULE, f"lab, 192.0.2.0/24\n\n# a comment\n{wrong}", 7)
    assert [(problem.file, problem.line) for problem in refused.value.errors] == [("networks.csv", 4)]


def test_every_wrong_line_is_named_with_its_file_and_number() -> None:
    with pytest.raises(RulesInvalid) as refused:
        rules("# a comment", RULE, RULE, "two, fields", RULE.replace("allow", "permit"))
    assert str(refused.value) == (
        "rules.csv line 3: is the same as line 2; "
        "rules.csv line 4: 2 fields instead of role, target, slice, action, conditions, effect; "
        "rules.csv line 5: effect 'permit' is neither allow nor deny"
    )


@pytest.mark.parametrize("grammar", ["", "[matchers]\nm = true", GRAMMAR.replace("[policy_effect]", "[effect]")])
def test_a_grammar_that_is_none_is_refused(grammar: str) -> None:
    with pytest.raises(RulesInvalid, match=r"access\.conf"):
        Rules.parse(grammar, RULE, "", 7)
