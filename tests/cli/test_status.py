"""`status`, `whoami`, `why`, and asking step by step on a terminal, against the real API."""

from __future__ import annotations

import json

from broker.models import TotpFactor
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import Answer
from tests.support.world import World

DATASET, ROLE, SEND = "Which dataset?", "Which role?", "Send this request? [y/N] "


def test_status_shows_sign_in_expiry_and_waiting_work(world: World, terminal_of: TerminalOf) -> None:
    guest, dataset, _ = world.guest()
    world.add(TotpFactor(person_id=guest.id, wrapped_secret="unused", confirmed_at=world.now()))
    lease = world.issue(guest, dataset).lease
    ran = terminal_of(guest).run("status", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(ran.out)["data"]
    assert facts["leases"] == {"live": 1, "failing": None, "next": facts["leases"]["next"]}
    assert facts["leases"]["next"][:19] == lease.expires_at.isoformat()[:19]
    assert facts["requests"] == {"waiting": 0, "queue": 0}
    assert facts["me"]["signed_in_until"] > facts["me"]["signed_in_at"]
    said = terminal_of(guest).run("whoami").out
    assert f"until\t{facts['me']['signed_in_until']}" in said


def test_status_suggests_the_queue_for_waiting_decisions(world: World, terminal_of: TerminalOf) -> None:
    vendor, owner = world.vendor(), world.person(name="Olga Owner")
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=owner)
    asking, deciding = terminal_of(guest), terminal_of(owner)
    words = ["--role", "annotator", "--purpose", "March"]
    assert asking.run("request", "new", dataset.slug, *words).code == 0
    mine, queue = asking.run("status"), deciding.run("status")
    admin = json.loads(terminal_of(world.person(roles=("admin",))).run("status", "--json").out)["data"]
    assert admin["installation"]["closed_at"] is None
    assert "your requests waiting\t1\n" in mine.out
    assert "waiting for you\t1\n" in queue.out
    assert "Next: guestkey request list --view queue" in queue.err
    assert "You have no second factor yet. Add one in the portal:" in queue.err


def test_status_of_an_unconfirmed_person_says_so(world: World, terminal_of: TerminalOf) -> None:
    joined = world.person(world.vendor(), status="pending")
    ran = terminal_of(joined).run("status")
    assert ran.code == 0, ran.err
    assert "An admin has not confirmed you yet." in ran.err
    refused = terminal_of(joined).run("lease", "list")
    assert (refused.code, refused.err.splitlines()[-1]) == (3, "Next: guestkey status")


def test_guided_request_asks_for_missing_options(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    guest, dataset = world.person(vendor), world.dataset(vendor, owner=world.person())
    terminal = terminal_of(guest)
    piped = terminal.run("request", "new")
    assert (piped.code, "Missing: DATASET, --role, --purpose." in piped.err) == (2, True)
    part = f"{DATASET}\r\n    1  {dataset.slug}"
    answers: list[tuple[str, Answer]] = [
        (part, "7\n"),
        ("Enter a number from 1 to 1", "1\n"),
        (ROLE, "annotator\n"),
        ("Which slice?", "deidentified\n"),
        ("Purpose", "\n"),
        ("needs to know", "Label the March visits\n"),
        ("For how long [30d]: ", "soon\n"),
        ("not a duration", "7d\n"),
        (SEND, "y\n"),
    ]
    ran = terminal.type("request", "new", answers=answers)
    assert ran.code == 0, ran.out
    assert "for 7 d, for this: Label the March visits" in ran.out
    (asked,) = json.loads(terminal.run("request", "list", "--json").out)["data"]["items"]
    assert (asked["role"], asked["slice"], asked["period"]) == ("annotator", "deidentified", 7 * 86400)


def test_guided_request_is_sent_only_after_confirmation(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    guest, dataset = world.person(vendor), world.dataset(vendor)
    terminal = terminal_of(guest)
    answers: list[tuple[str, Answer]] = [("Which slice?", "1\n"), ("For how long", "\n"), (SEND, "\n")]
    ran = terminal.type("request", "new", dataset.slug, "--role", "annotator", "--purpose", "p", answers=answers[2:])
    assert "Sent. Next" in ran.out, "what is complete is not asked about"
    other = world.dataset(vendor)
    ran = terminal.type("request", "new", other.slug, "--purpose", "p", answers=[(ROLE, "annotator\n"), *answers])
    assert (ran.code, "Nothing was sent." in ran.out) == (130, True), ran.out
    assert len(json.loads(terminal.run("request", "list", "--json").out)["data"]["items"]) == 1


def test_why_groups_its_reasons_and_names_the_next_command(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor(status="onboarding")
    guest, dataset = world.person(vendor), world.dataset(vendor)
    ran = terminal_of(guest).run("why", dataset.slug)
    assert ran.code == 3
    yours, someone = ran.err.index("What you can fix:"), ran.err.index("What someone else must fix:")
    assert yours < ran.err.index("You have no grant on this dataset.") < someone
    assert someone < ran.err.index("Your vendor has not been activated yet.")
    assert f"    I could not get a credential for {dataset.slug}." in ran.err
    assert ran.err.splitlines()[-1] == f"Next: guestkey request new {dataset.slug}"
