"""Asking, deciding, suspending, and the rules, through the command line and the real API."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.kinds.discovery import kinds
from broker.models import Lease, Request
from broker.notices import outbox
from broker.runtime.rulebook import SHIPPED
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import Ran, Terminal
from tests.support.world import World


def data(ran: Ran) -> Any:
    """The data of a `--json` answer that worked."""
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["version"] == 1
    return document["data"]


def ask(terminal: Terminal, slug: str, *more: str) -> Ran:
    words = ["--role", "annotator", "--purpose", "Label the March visits", "--period", "7d"]
    return terminal.run("request", "new", slug, *words, *more)


@pytest.mark.fast
def test_request_becomes_a_grant(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person(roles=("admin",), name="Olga Owner")
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=owner)
    asking, deciding = terminal_of(guest), terminal_of(owner)
    assert dataset.slug in asking.run("dataset", "list").out
    shown = asking.run("dataset", "show", dataset.slug)
    assert "deidentified\t" in shown.out
    request_id = data(ask(asking, dataset.slug, "--json"))["id"]
    assert ask(asking, dataset.slug, "--wait", "1s").code != 0, "asking twice for the same"
    waiting = asking.run("request", "show", request_id, "--wait", "1s")
    assert (waiting.code, "pending" in waiting.out) == (7, True)
    queue = deciding.run("request", "list", "--view", "queue")
    assert request_id in queue.out
    facts = deciding.run("request", "show", request_id)
    assert "purpose\tLabel the March visits\n" in facts.out
    for line in (
        "would read deidentified\t",
        "; columns ",
        "not met now\tChecked for each credential: a recent second factor.\n",
        "how access ends\tpostgres: new sessions refused within ",
    ):
        assert line in facts.out, facts.out
    digest = data(deciding.run("request", "show", request_id, "--json"))["facts"]["digest"]
    assert f"Next: guestkey request approve {request_id} --digest {digest}   or: " in facts.err
    words = ["request", "approve", request_id, "--period", "2d", "--max-lifetime", "10m"]
    changed = deciding.run(*words, "--digest", "0" * 64)
    assert (changed.code, f"Next: guestkey request show {request_id}\n" in changed.err) == (1, True), changed.err
    approved = deciding.run(*words, "--digest", digest)
    assert approved.code == 0, approved.err
    decided = asking.run("request", "show", request_id, "--wait", "5s")
    assert (decided.code, "approved" in decided.out) == (0, True)
    (grant,) = data(asking.run("grant", "list", "--json"))["items"]
    assert grant["max_lifetime"] == 600
    assert "annotator" in asking.run("grant", "show", grant["id"]).out
    who = deciding.run("who", dataset.slug)
    assert grant["id"] in who.out
    assert asking.run("who", dataset.slug).code == 3


def test_refused_request_exits_3_and_shows_the_reason(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person(roles=("admin",))
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=owner)
    request_id = data(ask(terminal_of(guest), dataset.slug, "--json"))["id"]
    assert terminal_of(owner).run("request", "refuse", request_id).code == 2, "a reason is required"
    refused = terminal_of(owner).run("request", "refuse", request_id, "--reason", "Use the public set")
    assert refused.code == 0, refused.err
    shown = terminal_of(guest).run("request", "show", request_id, "--wait", "1s")
    assert (shown.code, "Use the public set" in shown.out) == (3, True)


def test_request_can_be_withdrawn(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=world.person())
    terminal = terminal_of(guest)
    request_id = data(ask(terminal, dataset.slug, "--json"))["id"]
    soon = terminal.run("request", "remind", request_id)
    assert (soon.code, "less than a day ago" in soon.err) == (1, True), soon.err
    world.change(Request, request_id, created_at=world.now() - timedelta(days=2))
    reminded = terminal.run("request", "remind", request_id)
    assert (reminded.code, f"{request_id} were sent a reminder" in reminded.err) == (0, True), reminded.err
    assert terminal.run("request", "withdraw", request_id).code == 0
    assert "withdrawn" in terminal.run("request", "show", request_id).out


@pytest.mark.usefixtures("worker")
def test_suspending_a_vendor_waits_for_every_end(world: World, terminal_of: TerminalOf) -> None:
    guest, dataset, _ = world.guest()
    leases = [world.issue(guest, dataset).lease.id for _ in range(2)]
    admin, vendor_id = terminal_of(world.person(roles=("admin",))), guest.caller.vendor_id or ""
    tried = admin.run("vendor", "suspend", vendor_id, "--dry-run")
    assert (tried.code, "postgres leases\t2\tat worst 60 s" in tried.out) == (0, True), tried.err
    assert world.lease(leases[0]).state == "active", "a dry run ends nothing"
    assert admin.run("vendor", "suspend", vendor_id).code == 2, "why?"
    suspended = admin.run("vendor", "suspend", vendor_id, "--reason", "incident", "--json")
    answer = data(suspended)
    assert {lease["lease"]: lease["state"] for lease in answer["outcomes"]} == dict.fromkeys(leases, "revoked")
    assert (answer["finished"], answer["confirmed"]) == (True, 2)
    out = terminal_of(guest).run("whoami")
    assert out.code == 4, "signed out at once"
    assert answer["id"] in admin.run("suspension", "list", "--state", "open").out
    resumed = admin.run("vendor", "resume", vendor_id, "--reason", "cleared")
    assert resumed.code == 0, resumed.err
    again = ["person", "resume", guest.id, "--reason", "cleared", "--json"]
    assert json.loads(admin.run(*again).err)["error"]["code"] == "conflict", "who was never suspended"
    shown = admin.run("suspension", "show", answer["id"]).out
    assert "confirmed ended\t2" in shown
    assert "postgres\t2 of 2 ended, the slowest after " in shown
    for lease_id in leases:
        assert f"{lease_id}\tpostgres\tended " in shown and "\tpostgresql: no such role, no session\n" in shown


def test_lease_that_failed_to_end_exits_9(world: World, terminal_of: TerminalOf) -> None:
    guest, dataset, _ = world.guest()
    lease_id = world.issue(guest, dataset).lease.id
    admin = terminal_of(world.person(roles=("admin",)))
    running = admin.start("person", "suspend", guest.id, "--reason", "left", "--wait", "20s")
    world.wait_for(lease_id, "revoking")
    world.change(Lease, lease_id, state="revoke_failed", attempts=3, last_error="a fault made for this test")
    _, err = running.communicate(timeout=30)
    assert running.returncode == 9, err
    assert f"Next: guestkey lease show {lease_id}" in err
    assert "Guestkey keeps trying: attempt 3" in err and "guestkey_ops.drop_user" in err
    world.change(Lease, lease_id, state="revoking")
    world.sweep()
    assert world.lease(lease_id).state == "revoked"
    resumed = admin.run("person", "resume", guest.id, "--reason", "came back")
    assert (resumed.code, "is active again" in resumed.err) == (0, True), resumed.err
    suspended = admin.run("dataset", "suspend", dataset.slug, "--reason", "leak", "--wait", "1s")
    assert (suspended.code, "new sessions are refused" in suspended.err) == (0, True), suspended.err
    assert admin.run("dataset", "resume", dataset.slug, "--reason", "mended").code == 0


def test_people_vendors_and_events(world: World, terminal_of: TerminalOf) -> None:
    guest, _dataset, _ = world.guest()
    admin = terminal_of(world.person(roles=("admin",)))
    assert guest.id in admin.run("person", "list", "--vendor", guest.caller.vendor_id or "").out
    assert "Ada Guest" in admin.run("person", "show", guest.id).out
    assert "active" in admin.run("vendor", "show", guest.caller.vendor_id or "").out
    assert admin.run("vendor", "list", "--limit", "1").out.count("\n") == 1
    assert admin.run("audit", "list", "--limit", "3").out.count("\n") == 3
    assert terminal_of(guest).run("vendor", "show", "vn_none").code == 6


def test_notices_and_choices_are_listed_and_changed(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person()
    guest, dataset = terminal_of(world.person(vendor)), world.dataset(vendor, owner=owner, register=False)
    assert ask(guest, dataset.slug).code == 0
    while outbox.deliver_outbox(world.ender):
        continue
    told = terminal_of(owner)
    (notice,) = data(told.run("notice", "list", "--json"))["items"]
    assert notice["id"] in told.run("notice", "list").out
    assert "All notices are read." in told.run("notice", "read").err
    assert data(told.run("notice", "list", "--json"))["items"][0]["read_at"]
    words = ["notice", "choose", "own_requests", "digest", "--hour", "7", "--zone", "Europe/Berlin"]
    assert guest.run(*words).code == 0
    held = data(guest.run("notice", "choices", "--json"))
    assert (held["digest_hour"], held["digest_zone"]) == (7, "Europe/Berlin")
    assert "own_requests\tdigest\t" in guest.run("notice", "choices").out
    assert guest.run("notice", "choose", "astrology", "now").code == 2
    auditor = terminal_of(world.person(roles=("auditor",)))
    for what in ("channels", "deliveries"):
        assert isinstance(data(auditor.run("notice", what, "--json"))["items"], list)
        assert guest.run("notice", what).code == 3


def test_rules_are_checked_tested_and_compared(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    admin = terminal_of(world.person(roles=("admin",)))
    folder = tmp_path / "policies"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    assert admin.run("policy", "check", str(folder)).code == 0
    assert "# rules.csv\n" in admin.run("policy", "show").out
    tested = admin.run("policy", "test", str(folder))
    assert tested.code == 0, tested.err
    same = admin.run("policy", "diff", str(folder))
    assert (same.code, same.out) == (0, "")
    rules = folder / "rules.csv"
    rules.write_text(rules.read_text().replace("allow", "Allow", 1))
    assert admin.run("policy", "check", str(folder)).code == 2
    assert "+" in admin.run("policy", "diff", str(folder)).out
    assert admin.run("policy", "apply", str(folder)).code == 2, "refused at the door"
    assert admin.run("policy", "check", str(tmp_path / "nowhere")).code == 2
    rules.write_text(rules.read_text().replace("Allow", "allow") + "# reviewed\n")
    proposed = data(admin.run("policy", "apply", str(folder), "--json"))
    another = terminal_of(world.person(roles=("admin",)))
    assert proposed["id"] in another.run("proposal", "list", "--state", "pending").out
    assert admin.run("proposal", "approve", proposed["id"]).code == 3, "nobody is their own second"
    refused = another.run("proposal", "refuse", proposed["id"], "--reason", "not now")
    assert refused.code == 0, refused.err
    shutil.copy(SHIPPED / "rules.csv", rules)
    again = data(admin.run("policy", "apply", str(folder), "--json"))["id"]
    assert "act\tapply_policy\n" in another.run("proposal", "show", again).out
    before = data(another.run("policy", "revisions", "--json"))["items"]
    approved = another.run("proposal", "approve", again)
    assert (approved.code, "approved and carried out" in approved.err) == (0, True), approved.err
    after = data(another.run("policy", "revisions", "--json"))["items"]
    assert [item["number"] for item in after[1:]] == [item["number"] for item in before]


def test_status_needs_no_sign_in(terminal_of: TerminalOf, world: World) -> None:
    terminal = terminal_of(world.person(name="Ada Guest"))
    ran = terminal.run("status", "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)["data"]
    assert facts["ready"] is True
    stranger = terminal.run("status", GUESTKEY_TOKEN="")
    assert (stranger.code, "Next: guestkey login" in stranger.err) == (4, True)


def test_events_are_listed_and_exported(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    guest, dataset, _ = world.guest()
    lease_id = world.issue(guest, dataset).lease.id
    auditor = terminal_of(world.person(roles=("auditor",)))
    said = auditor.run("audit", "list", "--about", lease_id).out
    assert f"\tAda Guest received the credential of the lease {dataset.slug}, deidentified, of Ada Guest.\t" in said
    listed = auditor.run("audit", "list", "--about", lease_id, "--json")
    (event,) = data(listed)["items"]
    assert event["kind"] in auditor.run("audit", "show", event["id"]).out
    file = tmp_path / "events.jsonl"
    taken = auditor.run("audit", "export", "--about", lease_id, "--output", str(file))
    assert (taken.code, taken.out) == (0, ""), taken.err
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == [event["id"]]
    assert auditor.run("audit", "export", "--about", lease_id, "--output", str(file)).code == 2, "never over a file"
    assert list(tmp_path.glob("*.part")) == []
    assert auditor.run("audit", "export", "--about", lease_id, "--format", "csv").out.startswith('"number","id","at",')
    assert auditor.run("audit", "list", "--since", "2020-01-01", "--about", lease_id).out.count("\n") == 1
    assert auditor.run("audit", "list", "--since", "yesterday").code == 2
    assert terminal_of(guest).run("audit", "export").code == 3


def test_lease_renewal_keeps_the_credential(world: World, terminal_of: TerminalOf) -> None:
    guest, dataset, grant = world.guest()
    lease = world.issue(guest, dataset, lifetime=60).lease
    terminal = terminal_of(guest)
    renewed = data(terminal.run("lease", "renew", lease.id, "--for", "20m", "--json"))
    assert renewed["expires_at"] > lease.expires_at.isoformat()
    assert terminal.run("lease", "renew", "l01nothing").code == 6
    world.change(type(grant), grant.id, ends_at=world.now())
    denied = terminal.run("lease", "renew", lease.id)
    assert (denied.code, "Your grant has ended." in denied.err) == (3, True)


def test_every_kind_is_listed_with_how_it_ends(world: World, terminal_of: TerminalOf) -> None:
    terminal = terminal_of(world.person(world.vendor()))
    listed = {line.split("\t")[0] for line in terminal.run("kind", "list").out.splitlines()}
    assert listed == set(kinds)
    narrow = terminal.type("kind", "list", columns=80).out
    assert all(kind.use.about in narrow for kind in kinds.values()), "whole sentences, not a column of words"
    for kind in kinds.values():
        shown = data(terminal.run("kind", "show", kind.name, "--json"))
        assert shown["ending"]["how"] == kind.ending.how
        assert (shown["proof"] is None) == (kind.proof is None)
    missing = terminal.run("kind", "show", "magic")
    assert (missing.code, "guestkey kind list" in missing.err) == (6, True), missing.err
