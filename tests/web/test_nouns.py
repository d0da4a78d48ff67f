"""What is made of nouns' declarations: lists, filters, names, search and sentences of every one of them."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from broker.auditing.searching import search
from broker.base.errors import Forbidden, Invalid, NotFound
from broker.base.ids import new_id
from broker.base.paging import Window
from broker.identity.nouns import Noun, declared
from broker.registry.naming import names_of
from tests.support.world import World
from tests.web.conftest import Replica, replica

__all__ = ["replica"]
CALLERS = ("admin", "auditor", "lead", "engineer", "owner")
# Filters whose type is a closed set of words.
CLOSED = ("status", "state", "view", "what")


def values_of(noun: Noun[Any]) -> list[dict[str, str]]:
    """Each filter of a noun with each of its values, or with a text."""
    return [{one.name: value} for one in noun.filters for value in (get_args(one.type) if one.name in CLOSED else "x")]


@pytest.mark.parametrize("who", CALLERS)
def test_every_list_and_filter_can_be_asked_for(replica: Replica, world: World, who: str) -> None:
    vendor = world.vendor()
    person = {
        "admin": lambda: world.person(roles=("admin",)),
        "auditor": lambda: world.person(roles=("auditor",)),
        "lead": lambda: world.person(vendor, roles=("lead",)),
        "engineer": lambda: world.person(vendor),
        "owner": lambda: world.person(),
    }[who]()
    if who == "owner":
        world.dataset(vendor, owner=person, register=False)
    asked = 0
    for noun in declared():
        for narrowed in ({}, *values_of(noun)):
            with world.database.transaction() as tx:
                try:
                    found = noun.page(tx, person.caller, Window(limit=2), **narrowed)
                except Forbidden:
                    assert noun.check is not None and who not in ("admin", "auditor"), noun.name
                except Invalid as error:
                    assert list(narrowed.values()) == ["x"], (noun.name, narrowed, error.detail)
                else:
                    assert len(found.items) <= 2
                    asked += 1
    assert asked > 20


def test_what_is_not_there_is_not_found_by_id_name_or_search(replica: Replica, world: World) -> None:
    admin = world.person(roles=("admin",)).caller
    for noun in declared():
        id_ = new_id(noun.prefix) if noun.prefix != "lease" else new_id("x").replace("x_", "l")
        with world.database.transaction() as tx:
            with pytest.raises(NotFound, match=f"no such {noun.name} here"):
                noun.one(tx, admin, id_)
            assert names_of(tx, [id_]) == {}, noun.name
            assert search(tx, admin, id_) == [], noun.name


def test_a_list_refuses_a_filter_that_it_does_not_have(replica: Replica, world: World) -> None:
    admin = world.person(roles=("admin",)).caller
    for noun in declared():
        with world.database.transaction() as tx, pytest.raises(AssertionError, match="have no filter colour"):
            noun.page(tx, admin, Window(), colour="red")


def test_no_two_nouns_tell_of_the_same_event(replica: Replica) -> None:
    kinds = [kind for noun in declared() for kind in noun.sentences]
    assert len(kinds) == len(set(kinds)) > 70
