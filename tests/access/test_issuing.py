"""The story of a credential on the real parts: issuing, its refusals, its races, and its end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy import select, update

from broker.base.database import clock
from broker.base.errors import Conflict, Denied, FactorNeeded, NotFound
from broker.leases import reconciling, renewing
from broker.models import Grant, Lease, Person
from broker.revocation import ending
from broker.worker.worker import Worker
from tests.support.data import BERLIN
from tests.support.world import World


@pytest.mark.fast
def test_guest_reads_exactly_the_slice(world: World) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    assert handed.values is not None
    with world.connect(handed) as session:
        rows = session.execute(f"SELECT * FROM {handed.values['relation']}").fetchall()
        assert len(rows) == BERLIN
        assert {row[1] for row in rows} == {"berlin"}
        assert len(rows[0]) == 3
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT name FROM clinic.patients")
    lease = world.lease(handed.lease.id)
    assert lease.state == "active"
    assert world.events(lease.id) == ["lease.issued"]
    world.change(Lease, lease.id, expires_at=world.now())
    world.sweep()
    assert world.lease(lease.id).state == "expired"


def test_every_reason_is_given_and_recorded(world: World) -> None:
    vendor = world.vendor("suspended")
    signed = world.person(vendor, factor_age=None)
    dataset = world.dataset(vendor, register=False)
    with pytest.raises(Denied) as refused:
        world.issue(signed, dataset)
    codes = {reason.code for reason in refused.value.decision.reasons}
    assert codes == {"vendor_suspended", "no_grant"}
    assert world.events(dataset.id)[-1] == "decision.denied"


def test_second_factor_is_asked_for_only_if_nothing_else_denies(world: World) -> None:
    vendor = world.vendor()
    signed = world.person(vendor, factor_age=3600)
    dataset = world.dataset(vendor)
    world.grant(dataset, signed)
    with pytest.raises(FactorNeeded) as needed:
        world.issue(signed, dataset)
    assert needed.value.max_age == 900


def test_unoffered_dataset_is_denied_like_a_missing_one(world: World) -> None:
    vendor, other = world.vendor(), world.vendor()
    signed, hidden = world.person(vendor), world.dataset(other, register=False)
    answers = []
    for slug in (hidden.slug, "no-such-dataset"):
        with pytest.raises(NotFound) as missing:
            world.issue(signed, hidden, slug=slug)
        answers.append((missing.value.detail, missing.value.advice, missing.value.code))
    assert answers[0] == answers[1]


def test_concurrent_issues_at_the_lease_cap_make_one_lease(world: World) -> None:
    signed, dataset, grant = world.guest()
    most = world.settings.max_live_leases
    made = [world.issue(signed, dataset) for _ in range(most - 1)]
    barrier = threading.Barrier(4)

    def attempt(_: int) -> str:
        barrier.wait()
        try:
            world.issue(signed, dataset)
        except Conflict as error:
            return error.code
        return "issued"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(attempt, range(4)))
    assert outcomes == ["issued", *["too_many_leases"] * 3]
    with world.database.transaction() as tx:
        ending.revoke_grant(tx, grant.id, signed.caller, "test over", clock(tx))
    world.sweep()
    assert all(world.lease(handed.lease.id).state == "revoked" for handed in made)


def test_revoke_during_issue_waits_and_then_ends_the_lease(world: World, worker: Worker) -> None:
    """Whoever revokes while the deciding transaction holds its locks waits, and then finds the lease."""
    signed, dataset, grant = world.guest()
    original = world.parts.vault.child_token
    revoked = threading.Event()

    def revoke() -> None:
        with world.database.transaction() as tx:
            ending.revoke_grant(tx, grant.id, signed.caller, "meanwhile", clock(tx))
        revoked.set()

    def slow(*arguments: object, **named: object) -> object:
        threading.Thread(target=revoke).start()
        assert revoked.wait(5)
        return original(*arguments, **named)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.parts.vault, "child_token", slow)
        with pytest.raises(Conflict) as ended:
            world.issue(signed, dataset)
    assert ended.value.code == "ended_meanwhile"
    with world.database.transaction() as tx:
        lease = tx.scalars(select(Lease).where(Lease.grant_id == grant.id)).one()
    world.wait_for(lease.id, "revoked", seconds=20)
    assert world.roles_of(lease.id) == 0


def test_issue_waiting_for_a_revoked_grant_is_denied(world: World) -> None:
    signed, dataset, grant = world.guest()
    holding, go_on = threading.Event(), threading.Event()

    def revoke() -> None:
        with world.database.transaction() as tx:
            tx.execute(update(Grant).where(Grant.id == grant.id).values(revoked_at=clock(tx)))
            holding.set()
            go_on.wait(5)

    thread = threading.Thread(target=revoke)
    thread.start()
    assert holding.wait(5)
    with ThreadPoolExecutor(1) as pool:
        issuing = pool.submit(world.issue, signed, dataset)
        time.sleep(0.3)
        assert not issuing.done(), "the gate must wait for the revocation"
        go_on.set()
        with pytest.raises(Denied) as refused:
            issuing.result(10)
    thread.join(5)
    assert [reason.code for reason in refused.value.decision.reasons] == ["no_grant"]


def test_revoke_ends_open_session_and_refuses_reconnect(world: World) -> None:
    """A holder that reconnects in a loop must not outlive its user (NOLOGIN is committed before anything else)."""
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    assert handed.values is not None
    stop = threading.Event()
    sessions: list[psycopg.Connection[tuple[object, ...]]] = []

    def reconnect() -> None:
        while not stop.is_set():
            try:
                sessions.append(world.connect(handed))
            except psycopg.Error:
                time.sleep(0.005)

    reader = world.connect(handed)
    reader.autocommit = False
    cursor = reader.cursor("kept")
    cursor.execute(f"SELECT * FROM {handed.values['relation']}")
    cursor.fetchone()
    thread = threading.Thread(target=reconnect)
    thread.start()
    time.sleep(0.2)
    with world.database.transaction() as tx:
        ending.revoke_lease(tx, tx.get_one(Lease, handed.lease.id), signed.caller, "", clock(tx))
    world.sweep()
    stop.set()
    thread.join(10)
    assert world.lease(handed.lease.id).state == "revoked"
    assert world.roles_of(handed.lease.id) == 0
    with pytest.raises(psycopg.OperationalError):
        cursor.fetchmany(50)
    cursor.close()
    reader.close()
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
    with pytest.raises(psycopg.OperationalError):
        world.connect(handed)


def test_idempotent_repeat_returns_the_same_lease_without_the_secret(world: World) -> None:
    signed, dataset, _ = world.guest()
    first = world.issue(signed, dataset, idempotency_key="once")
    again = world.issue(signed, dataset, idempotency_key="once")
    assert first.values is not None
    assert again.values is None
    assert again.lease.id == first.lease.id
    with pytest.raises(Conflict, match="different request"):
        world.issue(signed, dataset, idempotency_key="once", kind="token")
    with pytest.raises(Conflict, match="different request"):
        world.issue(signed, dataset, idempotency_key="once", slice="full")


def test_concurrent_idempotent_requests_make_one_lease(world: World) -> None:
    signed, dataset, _ = world.guest()
    barrier = threading.Barrier(3)

    def attempt(_: int) -> tuple[str, bool]:
        barrier.wait()
        handed = world.issue(signed, dataset, idempotency_key="together")
        return handed.lease.id, handed.values is not None

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(attempt, range(3)))
    assert len({lease_id for lease_id, _ in outcomes}) == 1
    assert sum(shown for _, shown in outcomes) == 1


def test_lease_never_outlasts_its_grant(world: World) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor), world.dataset(vendor)
    grant = world.grant(dataset, signed, ends_at=world.now() + timedelta(seconds=90))
    assert world.issue(signed, dataset).lease.expires_at == grant.ends_at


def test_credential_of_a_crashed_issue_is_found_and_ended(world: World) -> None:
    """Whatever step the process died at: the pending lease tells the worker, once its call's deadline has passed."""
    signed, dataset, _ = world.guest()

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("broker.leases.issuing._activate", die)
        with pytest.raises(Killed):
            world.issue(signed, dataset)
    with world.database.transaction() as tx:
        lease = tx.scalars(select(Lease).where(Lease.person_id == signed.id)).one()
    assert lease.state == "pending"
    assert world.roles_of(lease.id) == 1
    world.change(Lease, lease.id, deadline=world.now())
    world.sweep()
    assert world.lease(lease.id).state == "revoked"
    assert world.roles_of(lease.id) == 0


def test_database_user_without_a_lease_is_found_and_ended(world: World) -> None:
    name = f"gk_{world.parts.tag}_l00000000000000000000000000"
    with world.admin() as connection:
        connection.execute(f"SET ROLE guestkey_minter; CREATE ROLE {name} LOGIN")
    with world.admin() as connection:
        connection.execute("CREATE ROLE gk_other_l00000000000000000000000000 LOGIN")
    assert reconciling.reconcile(world.ender).ended >= 1
    assert world.roles_of("l00000000000000000000000000") == 1, "another installation's user is never touched"
    with world.admin() as connection:
        connection.execute("DROP ROLE gk_other_l00000000000000000000000000")


def test_lease_that_no_longer_qualifies_is_ended(world: World) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    renewing.redecide_all(world.ender)
    assert world.lease(handed.lease.id).state == "active"
    world.change(Person, signed.id, status="suspended")
    assert renewing.redecide_all(world.ender) >= 1
    lease = world.lease(handed.lease.id)
    assert (lease.state, lease.end_cause) == ("revoking", "disqualified")
    world.sweep()
    assert world.lease(handed.lease.id).state == "revoked"
