"""Names for ids, and ids for names: one thing is meant or none, and nobody learns of what they do not see."""

from __future__ import annotations

import secrets

import pytest

from broker.base.errors import Invalid
from broker.identity.caller import Caller
from broker.models import Person
from broker.registry.naming import (
    anything_meant,
    each_told_apart,
    names_of,
    names_seen,
    person_meant,
    told_apart,
    vendor_meant,
)
from tests.support.world import World


def meant(world: World, caller: Caller, text: str) -> str | None:
    """The person meant, or why none is."""
    with world.database.transaction() as tx:
        try:
            return person_meant(tx, caller, text)
        except Invalid as error:
            return error.detail


def test_unique_name_resolves_to_its_person(world: World) -> None:
    auditor = world.person(roles=("auditor",)).caller
    name = f"Zoë {secrets.token_hex(4)}"
    one = world.person(name=name)
    with world.database.transaction() as tx:
        email = tx.get_one(Person, one.id).email
    for text in (name, f"  {name.upper()} ", email.upper(), one.id, f"person:{one.id}"):
        assert meant(world, auditor, text) == one.id, text
    assert meant(world, auditor, "") is None
    assert meant(world, auditor, name[:-1]) == "Nobody that you can see has that name."
    world.person(name=name)
    assert meant(world, auditor, name) == "More than one has that name."
    assert meant(world, auditor, email) == one.id, "an e-mail tells them apart"


def test_names_resolve_only_to_what_the_caller_can_see(world: World) -> None:
    nobody = "Nobody that you can see has that name."
    owner, vendor = world.person(), world.vendor()
    name = f"Ada {secrets.token_hex(4)}"
    ada, colleague = world.person(vendor, name=name), world.person(vendor)
    lead, stranger = world.person(vendor, roles=("lead",)), world.person(world.vendor()).caller
    dataset = world.dataset(vendor, owner=owner, register=False)
    assert meant(world, owner.caller, name) == nobody
    grant = world.grant(dataset, ada)
    assert meant(world, owner.caller, name) == ada.id, "who holds a grant on one's dataset is seen there"
    assert meant(world, lead.caller, name) == ada.id
    assert meant(world, colleague.caller, name) == nobody
    assert meant(world, stranger, name) == nobody
    with world.database.transaction() as tx:
        assert vendor_meant(tx, owner.caller, vendor.name.upper()) == vendor.id
        assert anything_meant(tx, owner.caller, dataset.slug) == dataset.id
        assert anything_meant(tx, lead.caller, name) == ada.id
        for text in (dataset.slug, vendor.name, name):
            with pytest.raises(Invalid):
                anything_meant(tx, stranger, text)
        ids = [ada.id, vendor.id, dataset.id, grant.id]
        assert names_seen(tx, stranger, ids) == {}, "an id tried out tells no name"
        assert set(names_seen(tx, owner.caller, ids)) == set(ids)
        assert set(names_seen(tx, colleague.caller, ids)) == {vendor.id, dataset.id}


def test_displayed_names_are_distinct(world: World) -> None:
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    slice_id = world.slice_id(dataset)
    with world.database.transaction() as tx:
        names = names_of(tx, [signed.id, dataset.id, grant.id, lease.id, slice_id, "policy:1", "ev_" + "0" * 26])
    assert names == {
        signed.id: "Ada Guest",
        dataset.id: dataset.slug,
        grant.id: f"annotator on {dataset.slug} for Ada Guest",
        lease.id: f"{dataset.slug}, deidentified, of Ada Guest",
        slice_id: f"deidentified of {dataset.slug}",
    }


def test_people_in_choices_have_distinct_labels() -> None:
    known = [("", ""), ("", ""), ("Ada", ""), ("", "a@x.example"), ("Ada", "a@x.example")]
    shown = [told_apart(f"pe_{at}", name, email) for at, (name, email) in enumerate(known)]
    assert len(set(shown)) == len(known)
    assert shown[0] == "Person without a name (pe_0)" and shown[4] == "Ada (a@x.example)"
    alike = [Person(id=f"pe_{at}", name=name, email=email) for at, (name, email) in enumerate([*known, *known])]
    told = each_told_apart(alike)
    assert len(set(told.values())) == len(alike), "nor alike in everything, as from two sources"
    assert told["pe_4"] == "Ada (a@x.example) (pe_4)"
