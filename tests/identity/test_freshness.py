"""Freshness of the second factor: of this session or token, and for as long as it is asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.base.errors import Conflict, FactorNeeded
from broker.identity.caller import Caller, FoundCaller, by_token
from broker.identity.factors import mark_proven
from broker.identity.http import require_fresh
from broker.identity.terminal_confirmation import confirm, request_confirmation
from broker.models import ApiToken, Person
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
    with world.database.transaction() as tx:
        person = tx.get_one(Person, signed.id)
    other = world.sign_in(person)
    with world.database.transaction() as tx:
        mark_proven(tx, signed.caller, "totp", world.now())
    with world.database.transaction() as tx:
        assert by_token(tx, signed.token, None).caller.factor_at is not None
        assert by_token(tx, other.token, None).caller.factor_at is None
        assert tx.get_one(ApiToken, other.caller.holder_id).person_id == signed.id


@pytest.mark.parametrize(("seconds", "counts"), [(-1, False), (1, True)])
def test_a_command_line_is_confirmed_by_a_factor_proven_since_it_asked(
    world: World, seconds: int, counts: bool
) -> None:
    signed, now = world.person(), world.now()
    with world.database.transaction() as tx:
        waiting = request_confirmation(tx, signed.caller, now)
    proven = now + timedelta(seconds=seconds)
    session = replace(signed.caller, how="session", factor_at=proven)
    with world.database.transaction() as tx:
        if counts:
            confirm(tx, session, waiting.id, now)
        else:
            with pytest.raises(Conflict):
                confirm(tx, session, waiting.id, now)
    with world.database.transaction() as tx:
        assert (by_token(tx, signed.token, None).caller.factor_at == proven) == counts
