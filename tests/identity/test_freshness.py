"""Freshness of the second factor: of this session or token, and for as long as it is asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.base.errors import FactorNeeded
from broker.identity.caller import Caller
from broker.identity.callers import FoundCaller, by_token
from broker.identity.factors import mark_proven
from broker.identity.http import require_fresh
from broker.models import ApiToken
from tests.support.world import World

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "fresh"), [(None, False), (-6, False), (-5, True), (0, True), (900, True), (901, False)]
)
def test_a_factor_counts_from_5_s_ahead_to_its_longest_age(age: int | None, fresh: bool) -> None:
    proven = None if age is None else NOW - timedelta(seconds=age)
    caller = Caller("person", "pe_x", "", None, "se_x", "session", NOW, factor_at=proven)
    found = FoundCaller(caller, "active", "", None, NOW)
    if fresh:
        require_fresh(caller, found, 900)
        return
    with pytest.raises(FactorNeeded) as needed:
        require_fresh(caller, found, 900)
    assert needed.value.max_age == 900


def test_proving_a_factor_makes_no_other_token_of_the_person_fresh(world: World) -> None:
    signed = world.person(factor_age=None)
    other = world._sign_in("person", signed.id, None, "", frozenset(), None, None)
    with world.database.transaction() as tx:
        mark_proven(tx, signed.caller, "totp", world.now())
    with world.database.transaction() as tx:
        assert by_token(tx, signed.token, None).caller.factor_at is not None
        assert by_token(tx, other.token, None).caller.factor_at is None
        assert tx.get_one(ApiToken, other.caller.holder_id).person_id == signed.id
