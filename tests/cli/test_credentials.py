"""`connect`, `run`, `get` and `why` against the real API, OpenBao, PostgreSQL and psql."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from broker.models import ApiToken, Lease
from broker.worker.worker import Worker
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import CTRL_C, Terminal
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("worker")
COUNT = 'psql -XAt -c "SELECT count(*) FROM $GUESTKEY_RELATION"'


def only_lease(terminal: Terminal) -> dict[str, str]:
    """The one lease this person has."""
    listed = json.loads(terminal.run("lease", "list", "--json").out)["data"]["items"]
    assert len(listed) == 1
    found: dict[str, str] = listed[0]
    return found


def wait_for_file(file: Path, seconds: float = 20) -> str:
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, f"{file} was not written"
        time.sleep(0.05)
    return file.read_text()


@pytest.mark.fast
def test_run_sets_a_credential_and_ends_it(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    ran = terminal.run("run", dataset.slug, "--", "sh", "-c", COUNT)
    assert ran.code == 0, ran.err
    assert int(ran.out) > 0
    lease = only_lease(terminal)
    assert lease["state"] == "revoked"
    assert f"Lease {lease['id']} is revoked; the backend confirmed it." in ran.err
    assert world.roles_of(lease["id"]) == 0


def test_run_passes_the_childs_exit_code(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    assert terminal.run("run", dataset.slug, "--", "sh", "-c", "exit 42").code == 42
    assert terminal.run("run", dataset.slug, "--", "sh", "-c", "kill -9 $$").code == 137
    absent = terminal.run("run", dataset.slug, "--", "no-such-program")
    assert absent.code == 125
    listed = json.loads(terminal.run("lease", "list", "--json", "--state", "live").out)
    assert listed["data"]["items"] == []


def test_password_is_in_no_argument_and_other_libpq_settings_are_removed(
    world: World, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    script = f"env > {tmp_path}/env; ps -ww -e -o args= > {tmp_path}/ps"
    foreign = {"PGHOSTADDR": "192.0.2.1", "PGSERVICE": "evil", "PGOPTIONS": "-c x=y", "PGTZ": "UTC"}
    ran = terminal.run("run", dataset.slug, "--", "sh", "-c", script, **foreign)
    assert ran.code == 0, ran.err
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert seen["PGPASSWORD"] and seen["PGUSER"].startswith("gk_")
    assert seen["PGTZ"] == "UTC"
    assert not {"PGHOSTADDR", "PGSERVICE", "PGOPTIONS", "GUESTKEY_TOKEN"} & set(seen)
    arguments = (tmp_path / "ps").read_text()
    assert seen["PGPASSWORD"] not in arguments
    assert signed.token not in arguments
    assert seen["PGPASSWORD"] not in ran.out + ran.err


def test_connect_opens_psql_and_ends_the_lease_when_it_ends(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    ran = terminal.run("connect", dataset.slug, stdin="SELECT 40 + 2 AS answer;\n\\q\n")
    assert ran.code == 0, ran.err
    assert "42" in ran.out
    assert re.search(r"Ends \d\d:\d\d:\d\d \S+ \(in \d+ min\)", ran.err)
    assert "You can read slices." in ran.err
    assert only_lease(terminal)["state"] == "revoked"


def test_ctrl_c_in_psql_cancels_the_query_and_leaving_ends_the_lease(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    typed = [("=> ", "SELECT pg_sleep(50);\n"), ("sleep(50)", CTRL_C), ("=> ", "\\q\n")]
    screen = terminal.type("connect", dataset.slug, answers=typed)
    assert "canceling statement due to user request" in screen.out
    assert screen.code == 0
    assert only_lease(terminal)["state"] == "revoked"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_child_and_lease(
    world: World, terminal_of: TerminalOf, tmp_path: Path, number: signal.Signals
) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    script = f"echo $$ > {tmp_path}/started; exec sleep 60"
    running = terminal.start("run", dataset.slug, "--", "sh", "-c", script)
    wait_for_file(tmp_path / "started")
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 128 + number, err
    assert only_lease(terminal)["state"] == "revoked"


def test_signed_out_user_is_told_when_the_lease_ends(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset, _ = world.guest()
    script = f"echo x > {tmp_path}/started; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    running = terminal_of(signed).start("run", dataset.slug, "--", "sh", "-c", script)
    wait_for_file(tmp_path / "started")
    with world.database.transaction() as tx:
        tx.execute(update(ApiToken).where(ApiToken.person_id == signed.id).values(ended_at=world.now()))
    (tmp_path / "go").touch()
    _, err = running.communicate(timeout=30)
    assert running.returncode == 0
    assert err.endswith(
        "You were signed out meanwhile. The lease ends when it expires, if it has not ended already.\n"
        "Next: guestkey login\n"
    ), err
    with world.database.transaction() as tx:
        lease = tx.scalars(select(Lease).where(Lease.person_id == signed.id)).one()
    assert lease.state == "active", "signing out ends no lease"


def test_a_revoked_lease_ends_the_open_session(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset, grant = world.guest()
    owner = world.person(roles=("admin",))
    terminal = terminal_of(signed)
    script = f"psql -XAt -c 'SELECT 1' -o {tmp_path}/in -c 'SELECT pg_sleep(50)'"
    running = terminal.start("run", dataset.slug, "--", "sh", "-c", script)
    wait_for_file(tmp_path / "in")
    revoked = terminal_of(owner).run("grant", "revoke", grant.id, "--reason", "the project is over")
    assert revoked.code == 0, revoked.err
    _, err = running.communicate(timeout=30)
    assert "terminating connection" in err
    assert running.returncode == 2
    assert only_lease(terminal)["state"] == "revoked"


def test_get_prints_the_credential_once_and_how_it_ends(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    ran = terminal.run("get", dataset.slug, "--kind", "postgres", "--for", "5m", "--json")
    handed = json.loads(ran.out)
    assert (handed["version"], handed["command"]) == (1, "get")
    assert handed["data"]["credential"]["password"]
    assert handed["data"]["lease"]["ending"]["worst_case"] == 60
    lease_id = handed["data"]["lease"]["id"]
    assert handed["data"]["credential"]["password"] not in terminal.run("lease", "show", lease_id).out
    user = terminal.run("get", dataset.slug, "--kind", "postgres", "--field", "username")
    assert re.fullmatch(r"gk_[a-z0-9]{6}_l[a-z0-9]{26}\n", user.out)
    for lease in json.loads(terminal.run("lease", "list", "--json").out)["data"]["items"]:
        ended = terminal.run("lease", "revoke", lease["id"])
        assert (ended.code, ended.out) == (0, "")
        assert "the backend confirmed it" in ended.err


def test_why_lists_every_reason_and_denial_exits_3(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, grant = world.guest()
    terminal = terminal_of(signed)
    allowed = terminal.run("why", dataset.slug, "--slice", "deidentified")
    assert allowed.code == 0, allowed.err
    assert "allowed\tyes\n" in allowed.out
    admin = world.person(roles=("admin",))
    assert terminal_of(admin).run("grant", "revoke", grant.id, "-r", "over").code == 0
    denied = terminal.run("why", dataset.slug, "--slice", "deidentified")
    assert (denied.code, "allowed\tno\n" in denied.out) == (3, True)
    assert "✕ " in denied.err and "→ " in denied.err
    got = terminal.run("get", dataset.slug, "--kind", "postgres")
    assert (got.code, got.out) == (3, "")
    assert "✕ " in got.err
    assert terminal.run("why", "no-such-dataset").code == 6


def test_stale_factor_without_a_terminal_exits_5(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    signed = world.person(vendor, factor_age=None)
    dataset = world.dataset(vendor)
    world.grant(dataset, signed)
    ran = terminal_of(signed).run("get", dataset.slug, "--kind", "postgres")
    assert ran.code in (3, 5), ran.err
    assert "second factor" in ran.err.lower()


def test_unconfirmed_revoke_exits_7_without_a_worker(world: World, terminal_of: TerminalOf, worker: Worker) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    lease_id = world.issue(signed, dataset).lease.id
    worker.stop()
    time.sleep(1)
    ran = terminal.run("lease", "revoke", lease_id, "--wait", "1s")
    assert ran.code == 7, ran.err
    assert f"Next: guestkey lease show {lease_id}" in ran.err
    world.sweep()
    assert terminal.run("lease", "revoke", lease_id).code == 0


@pytest.mark.parametrize(
    "lifetime",
    ["", " ", "-5", "-15m", "0", "0s", "1.5h", "1e3", "NaN", "inf", "9" * 10, "١٥m", "15 m", "15mm", "m", "15m;true"],
)
def test_invalid_duration_is_refused_before_any_request(world: World, terminal_of: TerminalOf, lifetime: str) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    terminal = terminal_of(signed)
    for words in (
        ("get", dataset.slug, "--kind", "postgres", "--slice", "deidentified", f"--for={lifetime}"),
        ("lease", "renew", lease.id, f"--for={lifetime}"),
    ):
        ran = terminal.run(*words)
        assert (ran.code, ran.out) == (2, ""), ran
        assert "is not a duration" in ran.err and "Write it as 15m" in ran.err
    assert world.lease(lease.id).expires_at == lease.expires_at
    assert world.leases_of(signed) == [lease.id]


@pytest.mark.parametrize(("lifetime", "code"), [("999999999w", 2), ("25h", 2), ("2h", 3)])
def test_too_long_lifetime_is_denied_with_the_allowed_one(
    world: World, terminal_of: TerminalOf, lifetime: str, code: int
) -> None:
    signed, dataset, _ = world.guest()
    words = ("get", dataset.slug, "--kind", "postgres", "--slice", "deidentified", "--for", lifetime)
    ran = terminal_of(signed).run(*words)
    assert (ran.code, ran.out) == (code, ""), ran
    assert ("--for: Input should be less than or equal to 86400" if code == 2 else "this rule allows 1 h") in ran.err
    assert world.leases_of(signed) == []
