"""Facts under which one rule allows, for tests to change one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import broker.policies
from broker.policies import CallerFacts, DatasetFacts, Facts, GrantFacts, Rules, SliceFacts, VendorFacts, decide

HERE = Path(broker.policies.__file__).parent
GRAMMAR = (HERE / "access.conf").read_text()
NETWORKS = "office, 10.0.0.0/8\n"
NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
RULE = "role:annotator, label:classification:internal, deidentified, read, mfa<=15m ttl<=1h, allow"


def rules(*lines: str) -> Rules:
    """Rules in force, with one network, `office`."""
    return Rules.parse(GRAMMAR, "\n".join(lines), NETWORKS, 7)


def facts(**changes: Any) -> Facts:
    """Facts under which RULE allows."""
    good = Facts(
        caller=CallerFacts("person:p", "active", "v", NOW - timedelta(minutes=1), True, "10.1.2.3"),
        vendor=VendorFacts("v", "active"),
        dataset=DatasetFacts(
            "d",
            "trials",
            "active",
            frozenset({"classification:internal"}),
            None,
            True,
            (SliceFacts("deidentified", True, frozenset({"read"})), SliceFacts("full", True, frozenset({"read"}))),
        ),
        grants=(GrantFacts("g", "role:annotator", "person:p", NOW - timedelta(days=1), NOW + timedelta(days=1)),),
        action="read",
        slice="deidentified",
        lifetime=900,
    )
    return replace(good, **changes)


def codes(facts_: Facts, rules_: Rules | None, now: datetime = NOW) -> list[str]:
    """The codes of every reason against it; none where it is allowed."""
    decision = decide(facts_, rules_, now)
    assert decision.allowed == (not decision.reasons)
    return [reason.code for reason in decision.reasons]


def caller(**changes: Any) -> CallerFacts:
    """The caller of `facts()`, changed."""
    asks = facts().caller
    assert asks is not None
    return replace(asks, **changes)


def dataset(**changes: Any) -> DatasetFacts:
    """The dataset of `facts()`, changed."""
    asked = facts().dataset
    assert asked is not None
    return replace(asked, **changes)


def grant(**changes: Any) -> GrantFacts:
    """The grant of `facts()`, changed."""
    return replace(facts().grants[0], **changes)


def slice_(**changes: Any) -> SliceFacts:
    """The slice of `facts()` that is asked for, changed."""
    return replace(dataset().slices[0], **changes)
