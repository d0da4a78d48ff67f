"""The gate: the table beside the rules, properties that must hold for any facts, and the traps of its parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policies import (
    CallerFacts,
    DatasetFacts,
    Facts,
    GrantFacts,
    Rules,
    RulesInvalid,
    SliceFacts,
    VendorFacts,
    conditions,
    decide,
    run_table,
)
from tests.policies.example import GRAMMAR, HERE, NOW, RULE, caller, codes, dataset, facts, grant, rules


def test_tests_csv_passes_against_the_rules() -> None:
    shipped = Rules.parse(GRAMMAR, (HERE / "rules.csv").read_text(), (HERE / "networks.csv").read_text(), 1)
    outcomes = run_table(shipped, (HERE / "tests.csv").read_text())
    assert len(outcomes) > 10
    assert [outcome for outcome in outcomes if not outcome.passed] == []


@pytest.mark.parametrize(
    ("networks", "conditions", "bound"),
    [
        ("office, 10.0.0.0/8", "", ()),
        ("office, 10.0.0.0/8", "network:office", ("10.0.0.0/8",)),
        ("office, 10.0.0.0/8\noffice, 2001:db8::/32", "network:office", ("10.0.0.0/8", "2001:db8::/32")),
        ("office, 10.0.0.0/8\nlab, 10.1.0.0/16\nlab, 192.0.2.0/24", "network:office network:lab", ("10.1.0.0/16",)),
    ],
)
def test_a_rule_that_names_networks_bounds_the_credential_to_them(
    networks: str, conditions: str, bound: tuple[str, ...]
) -> None:
    rule = f"role:annotator, label:classification:internal, deidentified, read, mfa<=15m ttl<=1h {conditions}, allow"
    decision = decide(facts(), Rules.parse(GRAMMAR, rule, networks, 7), NOW)
    assert decision.bounds is not None
    assert decision.bounds.networks == bound


def test_allowed_decision_has_bounds() -> None:
    decision = decide(facts(), rules(RULE), NOW)
    assert decision.allowed
    assert decision.bounds is not None
    assert (decision.bounds.slice, decision.bounds.max_lifetime) == ("deidentified", 3600)
    assert decision.bounds.not_after == NOW + timedelta(days=1)
    assert (decision.revision, decision.grant, decision.rules, decision.decided_at) == (7, "g", (RULE,), NOW)
    assert decision.bounds.action == "read"
    assert decision.passed == ("open", "caller", "vendor", "dataset", "grant", "rule", "conditions")
    with pytest.raises(TypeError):
        bool(decision)


def test_every_unmet_reason_is_listed() -> None:
    suspended = CallerFacts("person:p", "suspended", "v", None, True)
    bad = facts(caller=suspended, vendor=VendorFacts("v", "suspended"), grants=())
    assert codes(bad, rules(RULE)) == ["caller_suspended", "vendor_suspended", "no_grant"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"caller": None}, "caller_unknown"),
        ({"vendor": None}, "vendor_unknown"),
        ({"vendor": VendorFacts("other", "active")}, "vendor_unknown"),
        ({"vendor": VendorFacts("v", "onboarding")}, "vendor_onboarding"),
        ({"slice": "nowhere"}, "slice_unknown"),
        ({"slice": "full"}, "no_rule"),
        ({"action": "write"}, "action_not_served"),
        ({"lifetime": 3601}, "lifetime_too_long"),
        ({"lifetime": 0}, "lifetime_invalid"),
        ({"lifetime": -5}, "lifetime_invalid"),
        ({"dataset": None}, "dataset_unknown"),
    ],
)
def test_each_single_failure_is_denied_with_its_reason(changes: dict[str, object], code: str) -> None:
    assert code in codes(facts(**changes), rules(RULE))


def test_without_rules_all_access_is_denied() -> None:
    assert codes(facts(), None) == ["rules_missing"]


def test_unoffered_dataset_is_denied_like_a_missing_one() -> None:
    unoffered = decide(facts(dataset=dataset(offered=False)), rules(RULE), NOW)
    missing = decide(facts(dataset=None), rules(RULE), NOW)
    assert unoffered == missing
    assert (unoffered.visible, unoffered.revision, unoffered.bounds) == (False, 7, None)


def test_factor_needed_is_set_only_if_the_factor_alone_is_missing() -> None:
    stale = caller(factor_at=NOW - timedelta(minutes=16))
    assert decide(facts(caller=stale), rules(RULE), NOW).factor_needed == 900
    both = facts(caller=stale, vendor=VendorFacts("v", "suspended"))
    assert decide(both, rules(RULE), NOW).factor_needed is None


def test_any_deny_that_applies_wins() -> None:
    deny = "role:annotator, dataset:trials, *, *, , deny"
    assert codes(facts(), rules(RULE, deny)) == ["rule_denies"]


def test_a_deny_whose_fact_is_missing_applies() -> None:
    deny = "role:annotator, dataset:trials, deidentified, read, network:office, deny"
    away = caller(address="192.0.2.1")
    nowhere = caller(address=None)
    assert codes(facts(caller=away), rules(RULE, deny)) == []
    assert codes(facts(caller=nowhere), rules(RULE, deny)) == ["rule_denies"]


@pytest.mark.parametrize("listed", ["203.0.113.0/24", "::ffff:203.0.113.0/120", "64:ff9b::203.0.113.0/120"])
@pytest.mark.parametrize(
    "address",
    ["203.0.113.7", "::ffff:203.0.113.7", "::FFFF:cb00:7107", "64:ff9b::203.0.113.7", "2002:cb00:7107::1", "not one"],
)
def test_a_denied_network_is_denied_in_every_spelling(listed: str, address: str) -> None:
    """And what may be of the network or not is let in nowhere that only it is."""
    asks = facts(caller=caller(address=address))
    deny = "role:annotator, dataset:trials, deidentified, read, network:office, deny"
    allow = f"{RULE.rpartition(',')[0]} network:office, allow"
    networks = f"office, {listed}"
    assert codes(asks, Rules.parse(GRAMMAR, f"{RULE}\n{deny}", networks, 7)) == ["rule_denies"]
    let_in = codes(asks, Rules.parse(GRAMMAR, allow, networks, 7)) == []
    assert let_in == (address not in ("2002:cb00:7107::1", "not one"))


def test_hours_accept_every_iana_zone_but_no_local_one() -> None:
    for zone in available_timezones() - {"localtime", "posixrules", "Factory"}:
        assert conditions.parse(f"hours:07-19/{zone}", {}), zone
    for zone in ("localtime", "Factory", "../etc/passwd", "posix/UTC/..", "Europe/Atlantis", "UTC\n"):
        with pytest.raises(conditions.UnknownCondition):
            conditions.parse(f"hours:07-19/{zone}", {})


def test_hours_bound_the_lease_and_say_when_they_open() -> None:
    open_ = "role:annotator, dataset:trials, deidentified, read, ttl<=24h hours:08-20/Europe/Berlin, allow"
    decision = decide(facts(), rules(open_), NOW)
    assert decision.bounds is not None
    assert decision.bounds.not_after == datetime(2026, 3, 2, 19, 0, tzinfo=UTC)
    evening = NOW.replace(hour=19)
    closed = decide(facts(grants=(grant(ends_at=NOW + timedelta(days=3)),)), rules(open_), evening)
    assert [reason.code for reason in closed.reasons] == ["outside_hours"]
    assert closed.reasons[0].opens_at == datetime(2026, 3, 3, 7, 0, tzinfo=UTC)
    summer = datetime(2026, 3, 29, 6, 30, tzinfo=UTC)
    held = facts(grants=(grant(ends_at=summer + timedelta(days=3)),))
    assert codes(held, rules(open_), summer) == [], "08:30 in Berlin on the day the clocks go forward"


def test_several_open_slices_must_be_named() -> None:
    full = RULE.replace("deidentified", "full")
    assert codes(facts(slice=None), rules(RULE, full)) == ["slice_unnamed"]
    assert codes(facts(slice=None), rules(RULE)) == []


def test_grant_bounds_slice_and_lifetime() -> None:
    narrow = grant(slice="full", max_lifetime=60)
    assert "slice_not_granted" in codes(facts(grants=(narrow,)), rules(RULE))
    short = grant(max_lifetime=600)
    assert codes(facts(grants=(short,)), rules(RULE)) == ["lifetime_too_long"]
    assert codes(facts(grants=(short,), lifetime=600), rules(RULE)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"holder": "person:other"},
        {"holder": "service:p"},
        {"holder": "p"},
        {"role": "annotator"},
        {"status": "revoked"},
        {"ends_at": NOW},
        {"starts_at": NOW + timedelta(seconds=1)},
    ],
)
def test_grant_that_does_not_cover_the_request_is_denied(changes: dict[str, object]) -> None:
    assert codes(facts(grants=(grant(**changes),)), rules(RULE)) != []


@pytest.mark.parametrize(
    "line",
    [
        RULE.replace("allow", "Allow"),
        RULE.replace("allow", "permit"),
        RULE.replace("role:annotator", "annotator"),
        RULE.replace("role:annotator", "role:annot\u0430tor"),
        RULE.replace("role:annotator", "person:p"),
        RULE.replace("role:annotator", "role:.*"),
        RULE.replace("deidentified", "*"),
        RULE.replace("read", "*"),
        RULE.replace("read", "Read"),
        RULE.replace("label:classification:internal", "dataset:a/../b"),
        RULE.replace("label:classification:internal", "dataset:*"),
        RULE.replace("label:classification:internal", "*"),
        RULE.replace("mfa<=15m", "mfa<=-1m"),
        RULE.replace("mfa<=15m", "mfa<15m"),
        RULE.replace("mfa<=15m", "sun:shining"),
        RULE.replace("mfa<=15m", "network:nowhere"),
        RULE.replace("mfa<=15m", "hours:20-08/Europe/Berlin"),
        RULE.replace("mfa<=15m", "hours:08-20/Atlantis"),
        RULE.replace(" ttl<=1h", ""),
        RULE.replace("ttl<=1h", "ttl<=25h"),
        RULE.replace("mfa<=15m ttl<=1h", "mfa<=15m  ttl<=1h"),
        RULE + ", allow",
        RULE + "\x0b",
        RULE + "\n" + RULE,
        '"role:annotator", dataset:trials, deidentified, read, ttl<=1h, allow',
        "",
    ],
)
def test_one_invalid_line_refuses_all_rules(line: str) -> None:
    good = "role:trainer, dataset:trials, full, read, ttl<=1h, allow"
    with pytest.raises(RulesInvalid) as refused:
        rules(line) if not line else rules(good, line)
    assert all(problem.line >= 1 and problem.what for problem in refused.value.errors)


def test_person_named_like_a_role_gets_no_access() -> None:
    named = CallerFacts("person:role:annotator", "active", "v", NOW, True, "10.1.2.3")
    assert codes(facts(caller=named), rules(RULE)) == ["no_grant"]


ages = st.one_of(st.none(), st.integers(-100, 4000))
names = st.sampled_from(["deidentified", "full", "other"])


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    age = draw(ages)
    subject = draw(st.sampled_from(["person:p", "service:p", "p", "role:annotator"]))
    vendor = draw(st.sampled_from(["v", None]))
    statuses = st.sampled_from(["active", "pending", "suspended", "onboarding"])
    grants = st.builds(
        GrantFacts,
        st.sampled_from(["g1", "g2"]),
        st.sampled_from(["role:annotator", "role:trainer", "annotator"]),
        st.sampled_from(["person:p", "team:t", "service:p", "person:q"]),
        st.sampled_from([NOW - timedelta(days=1), NOW + timedelta(days=1)]),
        st.sampled_from([NOW, NOW + timedelta(days=2)]),
        st.sampled_from(["active", "revoked"]),
        st.one_of(st.none(), names),
        st.one_of(st.none(), st.integers(1, 5000)),
    )
    asked = DatasetFacts(
        "d",
        draw(st.sampled_from(["trials", "other"])),
        draw(statuses),
        draw(st.frozensets(st.sampled_from(["classification:internal", "classification:confidential"]))),
        draw(st.sampled_from([None, NOW, NOW + timedelta(hours=1)])),
        draw(st.booleans()),
        tuple(
            SliceFacts(name, draw(st.booleans()), frozenset({"read"})) for name in draw(st.lists(names, unique=True))
        ),
    )
    return Facts(
        draw(
            st.sampled_from(
                [
                    None,
                    CallerFacts(
                        subject,
                        draw(statuses),
                        vendor,
                        None if age is None else NOW - timedelta(seconds=age),
                        draw(st.booleans()),
                        draw(st.sampled_from([None, "10.0.0.1", "nonsense"])),
                    ),
                ]
            )
        ),
        draw(st.sampled_from([None, VendorFacts("v", draw(statuses))])),
        draw(st.sampled_from([None, asked])),
        tuple(draw(st.lists(grants, max_size=3))),
        draw(st.sampled_from(["read", "write", ""])),
        draw(st.one_of(st.none(), names)),
        "postgres",
        draw(st.one_of(st.none(), st.integers(-10, 100_000))),
    )


SOME = rules(
    RULE,
    "role:trainer, dataset:trials, full, read, ttl<=2h network:office, allow",
    "role:trainer, label:classification:confidential, full, read, network:office, deny",
)
UNRELATED = rules("role:steward, dataset:elsewhere, full, read, ttl<=1h, allow")


@settings(max_examples=300, deadline=None)
@given(any_facts())
def test_access_without_a_matching_rule_is_never_allowed(any_: Facts) -> None:
    assert not decide(any_, UNRELATED, NOW).allowed
    assert not decide(any_, None, NOW).allowed


@settings(max_examples=300, deadline=None)
@given(any_facts())
def test_a_denial_always_has_a_reason_and_an_allow_has_bounds(any_: Facts) -> None:
    decision = decide(any_, SOME, NOW)
    assert decision.allowed == (not decision.reasons)
    if decision.allowed:
        assert decision.bounds is not None
        assert decision.bounds.not_after > NOW
        assert decision.bounds.max_lifetime > 0
        assert any_.caller is not None
        assert any_.caller.status == "active"
    assert all(reason.code and reason.sentence and reason.advice for reason in decision.reasons)


def weaker(any_: Facts) -> list[Facts]:
    """The same facts with one of them missing."""
    less = [replace(any_, caller=None), replace(any_, vendor=None), replace(any_, dataset=None)]
    less += [replace(any_, grants=any_.grants[:n] + any_.grants[n + 1 :]) for n in range(len(any_.grants))]
    if any_.caller:
        less.append(replace(any_, caller=replace(any_.caller, factor_at=None)))
        less.append(replace(any_, caller=replace(any_.caller, address=None)))
    if any_.dataset:
        less.append(replace(any_, dataset=replace(any_.dataset, offered=False)))
        # Without a slice named, fewer slices leave less to choose from, which is an answer, not a right.
        if any_.slice is not None:
            less.append(replace(any_, dataset=replace(any_.dataset, slices=())))
    return less


@settings(max_examples=300, deadline=None)
@given(any_facts())
def test_fewer_facts_never_allow_more(any_: Facts) -> None:
    if any_.slice is None or decide(any_, SOME, NOW).allowed:
        return
    # The organisation's own people need no vendor; losing the vendor of a caller is another caller.
    for less in weaker(any_):
        assert not decide(less, SOME, NOW).allowed
