"""What an approver is shown: each condition as it stands, and what is different since they looked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import rfc8785

from broker.gate.explain import ProposedGrant, simulate
from broker.requests.dossier import Change, changes
from tests.support.world import World


def said(**facts: list[str]) -> str:
    """A state of affairs that says this."""
    return rfc8785.dumps({"shown": facts, "exact": []}).decode()


def test_changed_facts_show_removed_and_added_values() -> None:
    before, after = (
        said(Labels=["a", "b"], Owner=[], Rules=["one"]),
        said(Labels=["b", "c"], Owner=["Olga"], Rules=["one"]),
    )
    assert changes(before, after) == [Change("Labels", ["a"], ["c"]), Change("Owner", [], ["Olga"])]
    assert changes(before, before) == []
    assert changes(said(Labels=["b", "a"]), said(Labels=["a", "b"])) == [], "another order is no difference"


@pytest.mark.parametrize("odd", ["", "[]", "{", "7", '{"shown": 1}', '{"shown": {"Labels": 5}}', "[" * 100_000])
def test_unreadable_earlier_facts_show_no_changes(odd: str) -> None:
    assert changes(odd, said(Labels=["a"])) == []


def test_each_condition_is_met_or_has_a_reason(world: World) -> None:
    signed, dataset, _ = world.guest()
    prospect = ProposedGrant(f"person:{signed.id}", "pipeline", "deidentified")

    def conditions(address: str | None) -> list[tuple[str, str | None]]:
        party = replace(signed.caller, address=address)
        with world.database.transaction() as tx:
            (found,) = simulate(tx, world.parts.rulebook, party, dataset.id, prospect, locking=False).conditions
        return [(word, reason.code if reason else None) for word, reason in found]

    assert conditions("127.0.0.1") == [("network:office", None), ("ttl<=15m", None)]
    assert conditions("198.51.100.7") == [("network:office", "outside_network"), ("ttl<=15m", None)]
    assert conditions(None) == [("network:office", "outside_network"), ("ttl<=15m", None)]
