"""Asking the backends: what nobody recorded, what is recorded and gone, who does not answer, and whose it is."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from sqlalchemy import func, select, text

from broker.base.errors import BackendDown
from broker.embedded.openbao import Operator
from broker.keystore.vault import Vault
from broker.kinds.discovery import kinds
from broker.kinds.names import policy_of, role_of
from broker.kinds.postgres.kind import PostgresKind
from broker.kinds.values import BROKER, LeaseToEnd
from broker.leases import reconciling
from broker.models import Event, Lease, Notice, Slice
from broker.runtime import chores
from broker.runtime.parts import Parts, vault_of
from broker.suspensions import emergency_end
from broker.worker import worker as working
from broker.worker.worker import Worker
from tests.support.world import CLINIC, World


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be too young to be judged."""
    monkeypatch.setattr(reconciling, "_SETTLED", timedelta(seconds=-2))


def named(world: World, kind: str, subject: str) -> int:
    """How many events of a kind are about a subject."""
    with world.database.transaction() as tx:
        query = select(func.count()).select_from(Event).where(Event.kind == kind, Event.subject == subject)
        return tx.execute(query).scalar_one()


@contextmanager
def user(world: World, name: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A user made past the broker, logged in."""
    with world.admin() as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'; GRANT CONNECT ON DATABASE data TO {name}")
        session = psycopg.connect(
            host="127.0.0.1", port=world.stack.ports.postgres, dbname="data", user=name, password="x", autocommit=True
        )
        try:
            yield session
        finally:
            session.close()


def reads(session: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether a session still works."""
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def test_credentials_of_another_installation_are_never_touched(world: World, settled: None) -> None:
    """Its users in the same database, and its leases in the same key store."""
    setup, role, tag = vault_of(world.settings, "setup"), "gk-" + secrets.token_hex(8), "zzzzz1"
    world.dataset()
    definition = {
        "db_name": "data",
        "creation_statements": ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'"],
        "revocation_statements": ['DROP ROLE "{{name}}"'],
    }
    setup.write_role("database", role, definition)
    policy = f"guestkey-lease-{role}"
    setup.write_policy(policy, f'path "database/creds/{role}" {{ capabilities = ["read"] }}')
    vault = world.parts.vault
    token = vault.child_token(f"{tag}-l1", "l1", [policy], ttl=300)
    theirs = vault.database_credential(token, role)
    vault.renew_lease(theirs.lease_id, 300)
    with user(world, f"gk_{tag}_l2") as session:
        found = reconciling.reconcile(world.ender)
        assert reads(session)
    assert tag in found.shown["postgres"].other_tags
    assert theirs.lease_id not in found.forgotten
    assert world.ender.vault.lease_begun(theirs.lease_id) is not None
    with world.admin() as admin:
        left = admin.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'gk\\_zzzzz1\\_%'").fetchone()
        assert left == (2,)
        admin.execute(f"REVOKE CONNECT ON DATABASE data FROM gk_{tag}_l2; DROP ROLE gk_{tag}_l2")
    world.ender.vault.revoke_lease(theirs.lease_id)
    setup.delete_role("database", role)


def test_credential_removed_at_the_backend_ends_its_lease(world: World) -> None:
    signed, dataset, _ = world.guest()
    gone, stays = world.issue(signed, dataset), world.issue(signed, dataset)
    session = world.connect(gone)
    with world.admin() as admin:
        name = "gk_" + gone.lease.handle.replace("-", "_")
        admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert reads(session), "PostgreSQL lets it go on"
    assert gone.lease.id in reconciling.reconcile(world.ender).vanished
    assert world.lease(gone.lease.id).end_cause == "vanished"
    assert world.events(gone.lease.id) == ["lease.issued", "lease.ending", "lease.vanished"]
    world.wait_sweeping(gone.lease.id, "revoked")
    assert not reads(session)
    session.close()
    assert world.lease(stays.lease.id).state == "active"
    assert stays.lease.id not in reconciling.reconcile(world.ender).vanished


def test_credential_without_an_openbao_lease_is_ended(world: World) -> None:
    """The key store has lost its lease, as after a restore of its own: nothing but the broker would end the user."""
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, backend_lease_id=f"database/creds/{role_of(lease.slice_id)}/lost")
    assert lease.id not in reconciling.reconcile(world.ender).vanished, "it may just not be listed yet"
    world.change(Lease, lease.id, activated_at=world.now() - timedelta(minutes=5))
    assert lease.id in reconciling.reconcile(world.ender).vanished
    world.wait_sweeping(lease.id, "revoked")
    assert world.roles_of(lease.id) == 0


def test_openbao_lease_of_an_ended_credential_is_removed(world: World, settled: None) -> None:
    """As left by a worker that was killed between the confirmation and telling OpenBao."""
    signed, dataset, _ = world.guest()
    ended, lives = world.issue(signed, dataset).lease, world.issue(signed, dataset).lease
    PostgresKind().end_many(world.ender.vault, [world.to_end(ended.id)])
    world.change(Lease, ended.id, state="revoked", ended_at=world.now())
    backend = world.lease(ended.id).backend_lease_id or ""
    assert world.ender.vault.lease_begun(backend) is not None
    found = reconciling.reconcile(world.ender)
    assert backend in found.forgotten
    assert world.lease(lives.id).backend_lease_id not in found.forgotten
    assert world.ender.vault.lease_begun(backend) is None
    assert backend not in reconciling.reconcile(world.ender).forgotten
    assert world.roles_of(lives.id) == 1


def test_reconciling_skips_credentials_being_issued(world: World) -> None:
    slice_id = world.slice_id(world.dataset())
    vault = world.parts.vault
    token = vault.child_token("other1-l1", "l1", [policy_of(slice_id)], ttl=300)
    made = vault.database_credential(token, role_of(slice_id))
    assert made.lease_id not in reconciling.reconcile(world.ender).forgotten
    assert world.ender.vault.lease_begun(made.lease_id) is not None
    vault_of(world.settings, "ender").revoke_lease(made.lease_id)


@pytest.mark.parametrize("offset", ["-04:00", "+05:45", "Z"])
def test_credential_time_does_not_depend_on_openbaos_time_zone(world: World, offset: str) -> None:
    """OpenBao answers in its host's zone: read without it, credentials being made look old, or old ones young."""
    at = datetime(2026, 7, 1, 12, 30, 7, tzinfo=UTC)
    there = at if offset == "Z" else at.astimezone(datetime.fromisoformat(f"2026-07-01T00:00{offset}").tzinfo)
    issued = there.isoformat().replace("+00:00", "Z").replace(":07", ":07.123456789")
    answer = {"data": {"issue_time": issued}}
    with patch.object(Vault, "_write", return_value=answer):
        assert world.ender.vault.lease_begun("database/creds/x/y") == at
    without = {"data": {"issue_time": "2026-07-01T12:30:07"}}
    with patch.object(Vault, "_write", return_value=without), pytest.raises(BackendDown):
        world.ender.vault.lease_begun("database/creds/x/y")


def test_session_of_a_dropped_user_is_found_and_ended(world: World) -> None:
    name = "gk_" + world.parts.tag + "_l" + secrets.token_hex(13)
    with user(world, name) as session:
        with world.admin() as admin:
            admin.execute(f"REVOKE CONNECT ON DATABASE data FROM {name}; DROP ROLE {name}")
        assert reads(session)
        assert "nameless" in {stray.lease for stray in reconciling.reconcile(world.ender).strays}
        assert not reads(session)
    assert "nameless" not in {stray.lease for stray in reconciling.reconcile(world.ender).strays}


def test_silent_backend_is_reported_once_until_it_responds(world: World) -> None:
    place = f"far-{secrets.token_hex(4)}"
    dataset = world.dataset(register=False)
    world.change(Slice, world.slice_id(dataset), state="ready", binding={**CLINIC, "connection": place})
    subject = f"postgres:{place}"
    for _ in range(2):
        assert place in reconciling.reconcile(world.ender).shown["postgres"].unasked
    assert named(world, "place.silent", subject) == 1
    with world.database.transaction() as tx:
        assert reconciling.count_silent(tx)["postgres"] >= 1
        told = select(func.count()).select_from(Notice).where(Notice.kind == "place.silent", Notice.subject == subject)
        assert tx.execute(told).scalar_one() == 1
    operator = Operator(world.stack.bao)
    operator.set_login_url(place, "watch", world.stack.postgres.url("watch", "data"))
    for _ in range(2):
        assert place in reconciling.reconcile(world.ender).shown["postgres"].asked
    assert named(world, "place.answered", subject) == 1
    with world.database.transaction() as tx:
        assert place not in tx.execute(text("SELECT place FROM guestkey.silent_place")).scalars().all()


def test_unreachable_openbao_does_not_make_leases_vanish(world: World) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset).lease
    world.change(Lease, lease.id, activated_at=world.now() - timedelta(minutes=5))
    reconciling.reconcile(world.ender)
    world.stack.bao.stop()
    try:
        found = reconciling.reconcile(world.ender)
        with world.database.transaction() as tx:
            silent = tx.execute(text("SELECT place FROM guestkey.silent_place")).scalars().all()
    finally:
        world.stack.bao.start()
    assert not found.vanished and not found.strays
    assert reconciling.KEY_STORE in silent
    assert world.lease(lease.id).state == "active"


def test_internal_error_in_one_kind_is_reported_and_others_are_reconciled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(kinds))

    def shown(*_: Any) -> Any:
        raise KeyError("connection")

    reconciling.reconcile(world.ender)
    with world.database.transaction() as tx:
        # Other tests of the same stack may have left slices at places that do not answer.
        before = reconciling.count_silent(tx).get(first, 0)
    with monkeypatch.context() as broken:
        broken.setattr(kinds[first], "list_credentials", shown)
        found = reconciling.reconcile(world.ender)
    assert found.shown.keys() == kinds.keys()
    assert found.shown[first].unasked.keys() == {BROKER}
    with world.database.transaction() as tx:
        assert reconciling.count_silent(tx)[first] >= 1
    found = reconciling.reconcile(world.ender)
    assert BROKER not in found.shown[first].unasked
    with world.database.transaction() as tx:
        # Fewer where another test's place answers again by now.
        assert reconciling.count_silent(tx).get(first, 0) <= before


def test_internal_error_in_one_kind_does_not_stop_the_emergency_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = "e" + secrets.token_hex(8)[:5]
    end = PostgresKind.end

    def shown(*_: Any) -> Any:
        raise KeyError("bucket")

    def ended(kind: PostgresKind, vault: Vault, lease: LeaseToEnd) -> str:
        if lease.id == "lodd":
            raise KeyError("column")
        return end(kind, vault, lease)

    monkeypatch.setattr(kinds["s3"], "list_credentials", shown)
    monkeypatch.setattr(PostgresKind, "end", ended)
    with user(world, f"gk_{tag}_lodd"), user(world, f"gk_{tag}_lother"):
        found = emergency_end.end_shown(world.ender, tag, told=lambda *_: None)
    with world.admin() as admin:
        admin.execute(f"DROP OWNED BY gk_{tag}_lodd, gk_{tag}_lother; DROP ROLE gk_{tag}_lodd, gk_{tag}_lother")
    outcomes = {outcome.lease or outcome.kind: outcome for outcome in found.outcomes}
    assert "KeyError" in outcomes["lodd"].error
    assert outcomes["lother"].error == "PostgreSQL still shows 1 role, 0 sessions", "not of our making"
    assert (outcomes["s3"].state, outcomes["s3"].place) == (emergency_end.UNASKED, BROKER)


def test_one_of_several_workers_runs_each_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted where it costs: the calls that list a backend."""
    calls: list[str] = []
    shown = kinds["postgres"].list_credentials

    def counting(*arguments: Any) -> Any:
        calls.append(threading.current_thread().name)
        return shown(*arguments)

    monkeypatch.setattr(kinds["postgres"], "list_credentials", counting)
    monkeypatch.setattr(working, "RECONCILE_SECONDS", 2.0)
    others = [Parts.build(world.settings, identity="ender") for _ in range(3)]
    workers = [Worker(parts, None) for parts in others]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    threading.Event().wait(7)
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join(20)
    for parts in others:
        parts.close()
    assert 3 <= len(calls) <= 4, "one round every two seconds, whoever does it"


def test_round_of_a_dead_worker_is_run_by_the_next(world: World) -> None:
    name = secrets.token_hex(8)
    assert chores.take_on(world.database, name, 0.5) == 0.0
    waits = chores.take_on(world.database, name, 0.5)
    assert 0 < waits <= 0.5
    threading.Event().wait(waits)
    assert chores.take_on(world.database, name, 60) == 0.0
    with world.database.transaction() as tx:
        chores.at_once(tx, name)
    assert chores.take_on(world.database, name, 60) == 0.0
    assert chores.take_on(world.database, name, 60) > 50
    # The clock was put back by an hour: what looks due then is due now.
    with world.database.transaction() as tx:
        tx.execute(text("UPDATE guestkey.chore SET due_at = due_at + interval '1h' WHERE name = :name"), {"name": name})
    assert chores.take_on(world.database, name, 60) == 0.0
