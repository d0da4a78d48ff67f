"""Changing datasets, giving grants, confirming and turning away: through the command line and the real API."""

from __future__ import annotations

import json
from datetime import timedelta

from broker.models import Person
from tests.cli.conftest import TerminalOf
from tests.support.world import World


def test_dataset_change_is_proposed_and_approved(world: World, terminal_of: TerminalOf) -> None:
    owner, other = world.person(), world.person()
    admin, owning = terminal_of(world.person(roles=("admin",))), terminal_of(owner)
    slug = world.dataset(owner=owner, register=False).slug
    assert admin.run("dataset", "change", slug).code == 2
    titled = owning.run("dataset", "change", slug, "--title", "Better")
    assert (titled.code, "was changed" in titled.err) == (0, True), titled.err
    waiting = admin.run("dataset", "change", slug, "--label", "classification:confidential", "--owner", other.id)
    assert waiting.code == 0 and "guestkey proposal approve pr_" in waiting.err, waiting.err
    proposal = waiting.err.rpartition(" ")[2].strip()
    assert owning.run("proposal", "approve", proposal).code == 0
    shown = json.loads(admin.run("dataset", "show", slug, "--json").out)["data"]
    assert (shown["title"], shown["labels"], shown["owner"]) == ("Better", ["classification:confidential"], other.id)
    assert owning.run("dataset", "change", slug, "--no-labels").code == 3, "an owner no longer"


def test_a_grant_is_given_to_a_team(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person()
    slug, team = world.dataset(vendor, owner=owner).slug, world.team(vendor, world.person(vendor))
    until = (world.now() + timedelta(days=9)).date().isoformat()
    words = ("grant", "new", slug, "--role", "annotator", "--until", until, "--purpose", "Label")
    terminal = terminal_of(owner)
    assert terminal.run(*words).code == 2, "nobody is named"
    given = terminal.run(*words, "--team", team.name, "--slice", "deidentified")
    assert (given.code, team.name in given.err) == (0, True), given.err
    assert terminal.run(*words, "--team", team.name, "--slice", "deidentified").code == 1, "they hold it"


def test_joined_people_are_confirmed_and_refused(world: World, terminal_of: TerminalOf) -> None:
    first, second = (world.person(roles=("admin",)) for _ in range(2))
    right, wrong = (world.person(world.vendor(), status="pending") for _ in range(2))
    world.change(Person, right.id, invited_by=first.id)
    alone = terminal_of(first).run("person", "confirm", right.id)
    assert alone.code != 0 and "Another admin must confirm them" in alone.err, alone.err
    assert terminal_of(second).run("person", "confirm", right.id).code == 0
    away = terminal_of(first).run("person", "refuse", wrong.id, "--reason", "Somebody else")
    assert (away.code, "is refused" in away.err) == (0, True), away.err


def test_slice_and_team_changes_that_give_access_need_approval(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person()
    dataset, team, joiner = world.dataset(vendor, owner=owner), world.team(vendor), world.person(vendor)
    world.grant(dataset, team)
    admin = terminal_of(world.person(roles=("admin",)))
    words = ("slice", "add", dataset.slug, "names", "--connection", "data", "--table", "clinic.patients")
    for waiting in (admin.run(*words, "--column", "name"), admin.run("team", "add", team.id, joiner.id)):
        assert waiting.code == 0 and "waiting for the dataset's owner or another admin" in waiting.err, waiting.err


def test_why_shows_the_pending_request(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    dataset, guest = world.dataset(vendor), terminal_of(world.person(vendor))
    asked = guest.run("request", "new", dataset.slug, "--role", "annotator", "--purpose", "Label", "--json")
    request = json.loads(asked.out)["data"]["id"]
    why = guest.run("why", dataset.slug)
    assert why.code == 3 and f"guestkey request show {request}" in why.err, why.err
