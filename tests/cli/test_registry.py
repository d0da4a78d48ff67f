"""`team`, `service`, `source`: through the command line and the real API."""

from __future__ import annotations

import json

from broker.models import SignInSource
from tests.cli.conftest import TerminalOf
from tests.support.provider import Provider
from tests.support.world import World


def test_lead_creates_a_team_and_changes_its_members(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    guest, lead = world.person(vendor), terminal_of(world.person(vendor, roles=("lead",)))
    made = json.loads(lead.run("team", "new", "Night shift", "--json").out)["data"]
    assert f"{made['id']}\tNight shift\t" in lead.run("team", "list").out
    added = lead.run("team", "add", made["id"], guest.id)
    assert added.code == 0, added.err
    shown = lead.run("team", "show", made["id"])
    assert f"\n{guest.id}\tAda Guest\tactive\n" in shown.out
    out = lead.run("team", "remove", made["id"], guest.id)
    assert (out.code, f"{guest.id} was removed from {made['id']}; 0 leases are ending." in out.err) == (0, True), (
        out.err
    )
    assert "No members yet." in lead.run("team", "show", made["id"]).err
    assert lead.run("team", "show", "tm_none").code == 6
    assert lead.run("team", "new", "Night shift").code == 1, "a name is taken once"


def test_services_and_sources_are_listed(world: World, terminal_of: TerminalOf) -> None:
    service = world.service(world.vendor())
    admin = terminal_of(world.person(roles=("admin",)))
    assert service.id in admin.run("service", "list").out
    assert "/sign-in/" in admin.run("source", "list").out
    assert terminal_of(world.person(world.vendor())).run("source", "list").code == 3


def test_source_check_reports_findings(world: World, terminal_of: TerminalOf, provider: Provider) -> None:
    source, admin = world.source(None), terminal_of(world.person(roles=("admin",)))
    with world.database.transaction() as tx:
        tx.get_one(SignInSource, source.id).issuer = provider.issuer
    # A public client: there is no secret to be refused.
    provider.client_id, provider.client_secret, provider.takes = source.client_id, "", ["client_secret_post"]
    tried = admin.run("source", "check", source.id)
    assert (tried.code, "client\tyes" in tried.out) == (0, True), tried
    provider.answers["/keys"] = lambda: (500, {}, b"")
    failed = admin.run("source", "check", source.id)
    assert failed.code == 1 and "it answers 500" in failed.out and "No one can sign in there" in failed.err
    assert terminal_of(world.person()).run("source", "check", source.id).code == 3
