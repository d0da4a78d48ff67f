"""Closing the whole installation on real parts: by an admin, by the operator with the broker down, after a restore."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.base.errors import Conflict, Denied, Forbidden, NotSignedIn
from broker.gate.explain import explain_access
from broker.gate.facts import Ask
from broker.identity import caller
from broker.leases import reconciling
from broker.models import LIVE_STATES, Dataset, Grant, Lease
from broker.revocation import closing
from tests.operator.conftest import Ran, command
from tests.support.world import Signed, World

RUN = [sys.executable, "-c", "from broker.operator.main import app; app(prog_name='guestkey')"]


@pytest.fixture(autouse=True)
def opened(house: World) -> None:
    """Each test begins in an open house without a live lease, whatever the one before left."""
    with house.database.transaction() as tx:
        if closing.installation_state(tx).closed_at is None:
            closing.close(tx, "between two tests", actor="operator", now=house.now())
    closing.end_sessions_batch(house.ender)
    until = time.monotonic() + 30
    while _live(house):
        assert time.monotonic() < until, "a lease of the test before does not end"
        house.sweep()
        time.sleep(0.2)
    with house.database.transaction() as tx:
        closing.reopen(tx, house.person(roles=("admin",)).caller, "the next test", house.now())


def _live(house: World) -> int:
    with house.database.transaction() as tx:
        return tx.query(Lease).filter(Lease.state.in_(LIVE_STATES)).count()


def operator(house: World, *arguments: str, **variables: str) -> Ran:
    """Run a server command; no web and no worker runs beside it."""
    return command(arguments, {**house.stack.environment(), **variables})


def refused(house: World, signed: Signed, dataset: Dataset) -> set[str]:
    """The reasons an ask is denied for."""
    with pytest.raises(Denied) as denied:
        house.issue(signed, dataset)
    return {reason.code for reason in denied.value.decision.reasons}


def signed_in(house: World, signed: Signed) -> bool:
    with house.database.transaction() as tx:
        try:
            caller.by_token(tx, signed.token, "127.0.0.1")
        except NotSignedIn:
            return False
        return True


def as_admin(house: World, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Do something as a fresh admin."""
    admin = house.person(roles=("admin",))
    with house.database.transaction() as tx:
        return act(tx, admin.caller, *arguments, house.now(), **named)


def test_admin_closes_and_opens_the_installation(house: World) -> None:
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    with house.connect(handed) as session:
        as_admin(house, closing.close_manually, "somebody is in who should not be")
        assert refused(house, signed, dataset) == {"closed"}
        with pytest.raises(Conflict):
            as_admin(house, closing.close_manually, "again")
        assert closing.end_sessions_batch(house.ender) == 1
        house.wait_sweeping(handed.lease.id, "revoked")
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert not signed_in(house, signed)
    with pytest.raises(Forbidden):
        as_guest = signed.caller
        with house.database.transaction() as tx:
            closing.reopen(tx, as_guest, "let me in", house.now())
    as_admin(house, closing.reopen, "it was a false alarm")
    assert house.lease(handed.lease.id).state == "revoked", "opening brings back no lease"
    assert not signed_in(house, signed), "opening brings back no session"
    assert house.issue(signed, dataset).values


def test_sign_ins_and_leases_during_closing_are_ended(house: World) -> None:
    """A decision and the closing lock one row: one waits for the other, so no lease slips through."""
    guests = [house.guest() for _ in range(6)]

    def ask(guest: tuple[Signed, Dataset, Grant]) -> str:
        try:
            return house.issue(guest[0], guest[1]).lease.id
        except (Denied, Conflict):
            return ""

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, guest) for guest in guests]
        as_admin(house, closing.close_manually, "now")
        handed = [lease_id for future in asked if (lease_id := future.result())]
    closing.end_sessions_batch(house.ender)
    for lease_id in handed:
        house.wait_sweeping(lease_id, "revoked")
        assert house.roles_of(lease_id) == 0
    for signed, dataset, _ in guests:
        assert refused(house, signed, dataset) == {"closed"}


def test_everything_ends_with_the_broker_down(house: World) -> None:
    held = [(signed, house.issue(signed, dataset)) for signed, dataset, _ in (house.guest() for _ in range(3))]
    held.append((held[0][0], house.issue(*_tokens(house, held[0][0]), kind="token")))
    sessions = [house.connect(handed) for _, handed in held[:3]]
    arguments = ["end-everything", "--yes", "--json", "--reason", "an intruder"]
    environment = {**os.environ, **house.stack.environment()}
    ran = subprocess.run([*RUN, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    items = json.loads(ran.stdout)["data"]["items"]
    assert {item["lease"] for item in items} == {handed.lease.id for _, handed in held}
    assert {item["state"] for item in items} == {"revoked"}
    assert all(item["confirmed_by"] for item in items)
    assert "4 of 4 confirmed by their backend" in ran.stderr
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
    for signed, handed in held:
        assert house.roles_of(handed.lease.id) == 0
        assert not signed_in(house, signed)
    again = operator(house, "end-everything", "--yes", "--json")
    assert (again.returncode, json.loads(again.stdout)["data"]["items"]) == (0, [])


def _tokens(house: World, signed: Signed) -> tuple[Signed, Dataset]:
    """A dataset of which this person may also have tokens."""
    with house.database.transaction() as tx:
        vendor = tx.get_one(type(house.vendor()), signed.caller.vendor_id)
    dataset = house.dataset(vendor)
    house.grant(dataset, signed)
    return signed, dataset


def test_everything_ends_without_the_records(house: World) -> None:
    """OpenBao and the backends are enough; leases of other installations are not touched."""
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    foreign = "gk_zzzzzz_l01foreignforeignforeignforei"
    with house.admin() as connection:
        connection.execute(f'CREATE ROLE "{foreign}"')
    unreachable = {"GUESTKEY_DATABASE_URL": "postgresql://guestkey_app:x@127.0.0.1:1/guestkey"}
    unnamed = operator(house, "end-everything", "--yes", **unreachable)
    assert (unnamed.returncode, unnamed.stdout) == (1, "")
    assert "--installation" in unnamed.stderr
    ran = operator(house, "end-everything", "--yes", "--json", "--installation", house.parts.tag, **unreachable)
    assert ran.returncode == 0, ran.stderr
    assert [item["lease"] for item in json.loads(ran.stdout)["data"]["items"]] == [handed.lease.id]
    assert house.roles_of(handed.lease.id) == 0
    with house.admin() as connection:
        assert connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (foreign,)).fetchone()
        connection.execute(f'DROP ROLE "{foreign}"')
    house.change(type(handed.lease), handed.lease.id, expires_at=house.now())
    house.wait_sweeping(handed.lease.id, "expired")


def test_unreachable_backend_is_never_reported_as_success(house: World, tmp_path: Path) -> None:
    """Nobody is told that all is over while a user lives that no backend was asked for."""
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    no_records = {"GUESTKEY_DATABASE_URL": "postgresql://guestkey_app:x@127.0.0.1:1/guestkey"}
    no_key_store = {"GUESTKEY_BAO_ADDR": "http://127.0.0.1:1"}
    ends = ("end-everything", "--yes", "--installation")
    silent = operator(house, *ends, house.parts.tag, **no_records, **no_key_store)
    assert silent.returncode == 8, silent.stderr
    assert "! connection data\tpostgres\tnot reached: credentials there stay valid" in silent.stdout
    assert "0 ended, 1 not confirmed." in silent.stderr
    wrong = operator(house, *ends, "zzzzzz", "--json", **no_records)
    assert wrong.returncode == 9, wrong.stderr
    assert house.parts.tag in json.loads(wrong.stdout)["data"]["doubt"]
    whole = operator(house, *ends, f"gk_{house.parts.tag}", **no_records)
    assert (whole.returncode, whole.stdout) == (1, "")
    assert "six characters" in whole.stderr
    login = tmp_path / "watch"
    login.write_text(house.ender.vault.secret("connections/data/watch")["url"])
    unknown = operator(house, *ends, house.parts.tag, "--login", f"dat={login}", **no_records, **no_key_store)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "No connection is called dat. Configured are: data" in unknown.stderr
    assert house.roles_of(handed.lease.id) == 1
    by_hand = operator(house, *ends, house.parts.tag, "--login", f"data={login}", **no_records, **no_key_store)
    assert by_hand.returncode == 0, by_hand.stderr
    assert f"✓ {handed.lease.id}\tpostgres\tpostgresql: no such role, no session" in by_hand.stdout
    assert house.roles_of(handed.lease.id) == 0
    house.change(Lease, handed.lease.id, expires_at=house.now())
    house.wait_sweeping(handed.lease.id, "expired")


def test_unreachable_connection_is_in_the_report(house: World) -> None:
    """With the records at hand, too: what they know nothing of may live where the database is silent."""
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    house.change(Lease, handed.lease.id, state="revoked", ended_at=house.now())
    ran = operator(house, "end-everything", "--yes", "--json", GUESTKEY_BAO_ADDR="http://127.0.0.1:1")
    assert ran.returncode == 8, ran.stderr
    unasked = [item for item in json.loads(ran.stdout)["data"]["items"] if item["state"] == "unasked"]
    assert [(item["place"], item["kind"]) for item in unasked] == [("data", "postgres")]
    again = operator(house, "end-everything", "--yes")
    assert again.returncode == 0, again.stderr
    assert f"✓ {handed.lease.id}\tpostgres" in again.stdout
    assert house.roles_of(handed.lease.id) == 0


def test_unconfirmed_end_exits_9_and_shows_the_exposure(house: World) -> None:
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    with house.admin() as connection:
        connection.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA guestkey_ops FROM guestkey_watch")
        connection.execute("ALTER ROLE guestkey_minter NOLOGIN")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'guestkey_minter'")
        try:
            ran = operator(house, "end-everything", "--yes", "--seconds", "1")
        finally:
            connection.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA guestkey_ops TO guestkey_watch")
            connection.execute("ALTER ROLE guestkey_minter LOGIN")
    assert ran.returncode == 9, ran.stderr
    assert f"! {handed.lease.id}\tpostgres\texposed until" in ran.stdout
    assert "0 ended, 1 not confirmed." in ran.stderr
    house.change(type(handed.lease), handed.lease.id, next_attempt_at=house.now())
    house.wait_sweeping(handed.lease.id, "revoked")


def test_end_everything_asks_first_and_needs_yes_without_a_terminal(house: World) -> None:
    ran = operator(house, "end-everything")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "--yes" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_restored_records_close_the_installation(house: World) -> None:
    """A backup revives what was revoked since: nothing counts until an admin has looked at it."""
    signed, dataset, grant = house.guest()
    other, hers, _ = house.guest()
    assert closing.update_witness(house.ender) == 0
    assert closing.update_witness(house.ender) == 0, "told once, it has nothing against them"
    house.ender.vault.keep(closing.WITNESS_PATH, {"event": str(10**9), "at": house.now().isoformat()})
    # A replica started after the restore, before any worker: it asks the witness itself.
    assert refused(house, signed, dataset) == {"closed", "grant_held"}
    with house.database.transaction() as tx:
        stands = closing.installation_state(tx)
    assert "restored from a backup" in stands.why
    assert stands.held >= 2
    as_admin(house, closing.reopen, "looked through")
    assert refused(house, signed, dataset) == {"grant_held"}
    with house.database.transaction() as tx:
        reasons = explain_access(house.parts, tx, signed.caller, Ask(dataset.slug, slice="deidentified")).reasons
    assert [reason.code for reason in reasons] == ["grant_held"]
    assert as_admin(house, closing.confirm_grants, grants=[grant.id]) == 1
    assert house.issue(signed, dataset).values
    assert refused(house, other, hers) == {"grant_held"}
    assert as_admin(house, closing.confirm_grants, vendor=other.caller.vendor_id) == 1
    assert house.issue(other, hers).values
    assert closing.update_witness(house.ender) == 0, "what was dealt with closes nothing again"
    house.ender.vault.keep(closing.WITNESS_PATH, {"event": str(10**9), "at": house.now().isoformat()})
    assert closing.update_witness(house.ender) == 1, "the next restore does"


def test_own_grant_cannot_be_confirmed(house: World) -> None:
    admin = house.person(roles=("admin",))
    dataset = house.dataset(register=False)
    grant: Grant = house.grant(dataset, admin)
    with house.database.transaction() as tx:
        closing.close(tx, "restored", actor="operator", now=house.now(), hold_grants=True)
    with house.database.transaction() as tx:
        assert grant.id in {held.id for held in closing.held_grants(tx, admin.caller, limit=1000)}
        assert closing.confirm_grants(tx, admin.caller, house.now(), grants=[grant.id]) == 0
    assert as_admin(house, closing.confirm_grants, grants=[grant.id]) == 1
    guest = house.person(house.vendor())
    with pytest.raises(Forbidden), house.database.transaction() as tx:
        closing.held_grants(tx, guest.caller)


def test_worker_ends_everything_while_closed(house: World) -> None:
    signed, dataset, _ = house.guest()
    handed = house.issue(signed, dataset)
    ran = operator(house, "close", "--reason", "a drill")
    assert ran.returncode == 0, ran.stderr
    closing.end_sessions_batch(house.ender)
    house.wait_sweeping(handed.lease.id, "revoked")
    assert reconciling.reconcile(house.ender).strays == []
    assert house.lease(handed.lease.id).end_cause == "closed"
