"""How a guest's MariaDB user ends when all is against it: a guest that clings, OpenBao down, a frozen server."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.cursors import SSCursor

from broker.base.errors import BackendDown
from broker.kinds.discovery import kinds
from broker.kinds.names import role_of, user_of
from broker.kinds.values import BoundSlice, LeaseToEnd, NotEnded
from broker.leases import reconciling
from broker.leases.issuing import Handed
from broker.runtime.parts import vault_of
from tests.operator.conftest import command
from tests.support.clinging import clinging
from tests.support.mariadb import WARD_DEIDENTIFIED, Mariadb, Session, ask, ward_guest
from tests.support.waiting import until
from tests.support.world import World

KIND = kinds["mariadb"]
CONFIRMED = "mariadb: no such user, no connection"


@pytest.fixture
def handed(world: World, ward: Mariadb) -> Handed:
    """A credential in use."""
    signed, dataset = ward_guest(world)
    return world.issue(signed, dataset)


def to_end(world: World, handed: Handed, *, by_hand: bool = False) -> LeaseToEnd:
    """The lease as the worker would hand it to the kind; by hand: without OpenBao's lease."""
    lease = world.lease(handed.lease.id)
    return LeaseToEnd(lease.id, lease.handle, WARD_DEIDENTIFIED, None if by_hand else lease.backend_lease_id)


def log_in(ward: Mariadb, handed: Handed, **more: Any) -> Session:
    """A session of its holder."""
    assert handed.values is not None
    return ward.guest(handed.values, **more)


def lives(session: Session) -> bool:
    """Whether a session still answers."""
    try:
        ask(session, "SELECT 1")
    except pymysql.Error:
        return False
    return True


def gone(ward: Mariadb, handed: Handed) -> bool:
    """Whether the server shows neither user nor connection."""
    return ward.traces(handed.lease.id) == 0


def close(*sessions: Session) -> None:
    """Close what is still open."""
    for session in sessions:
        if session.open:
            session.close()


@pytest.mark.parametrize("by_hand", [False, True], ids=["OpenBao told", "by hand alone"])
def test_constantly_reconnecting_guest_is_ended(world: World, ward: Mariadb, handed: Handed, by_hand: bool) -> None:
    for _ in range(3):
        with clinging(partial(log_in, ward, handed), pymysql.Error, close) as sessions:
            assert KIND.end(world.ender.vault, to_end(world, handed, by_hand=by_hand)) == CONFIRMED
            assert sessions
            assert not any(lives(session) for session in sessions)
        handed = world.issue(*ward_guest(world))
    KIND.end(world.ender.vault, to_end(world, handed))


def test_openbao_alone_ends_a_constantly_reconnecting_guest(world: World, ward: Mariadb) -> None:
    """As it does when the broker is gone: its one call must leave nobody in who came while the account was locked."""
    for _ in range(10):
        handed = world.issue(*ward_guest(world))
        with clinging(partial(log_in, ward, handed), pymysql.Error, close) as sessions:
            KIND.settle(world.ender.vault, to_end(world, handed))
            assert sessions
            until(partial(gone, ward, handed), seconds=5)
            assert not any(lives(session) for session in sessions)
        assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED


def test_session_of_a_dropped_user_is_ended(world: World, ward: Mariadb, handed: Handed) -> None:
    """Why dropping the user is not enough: what it was reading, it goes on reading."""
    session = log_in(ward, handed)
    assert handed.values is not None
    relation = handed.values["relation"]
    reading = SSCursor(session)
    reading.execute(f"SELECT a.id FROM {relation} a, {relation} b, {relation} c")
    ward.ask(f"DROP USER '{user_of(handed.lease.handle)}'@'%'")
    assert len(reading.fetchmany(200_000)) == 200_000
    assert ward.traces(handed.lease.id) == 1
    bound = BoundSlice(WARD_DEIDENTIFIED)
    assert handed.lease.handle in KIND.list_credentials(world.ender.vault, world.parts.tag, [bound]).handles
    assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED
    with pytest.raises(pymysql.Error):
        reading.fetchall()
    assert not lives(session)
    # Their own ends would read on, and there is nothing to read from.
    vars(reading)["_result"].unbuffered_active = False
    vars(reading)["connection"] = None
    close(session)


@pytest.mark.parametrize(
    "busy",
    [
        "SELECT benchmark(1000000000000, sha2('a', 512))",
        "DO sleep(60)",
        "SELECT count(*) FROM {relation} a, {relation} b, {relation} c, {relation} d, {relation} e",
    ],
)
def test_busy_session_is_ended(world: World, ward: Mariadb, handed: Handed, busy: str) -> None:
    assert handed.values is not None
    session, relation = log_in(ward, handed), handed.values["relation"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, session, busy.format(relation=relation))
        time.sleep(0.3)
        began = time.monotonic()
        assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED
        assert isinstance(running.exception(5), pymysql.Error)
    assert time.monotonic() - began < KIND.ending.open_sessions
    close(session)


def test_login_in_progress_is_ended(world: World, ward: Mariadb, handed: Handed) -> None:
    """The server has looked the user up and waits for its answer, and meanwhile the user ends."""
    asked, answer = threading.Event(), threading.Event()

    class Slow(pymysql.Connection):
        def _get_server_information(self) -> None:
            super()._get_server_information()  # type: ignore[misc]
            # What the user does not use makes the server ask once more.
            self._auth_plugin_name = "mysql_old_password"

        def _process_auth(self, *given: Any) -> Any:
            asked.set()
            answer.wait(20)
            return super()._process_auth(*given)  # type: ignore[misc]

    assert handed.values is not None
    given: dict[str, Any] = {"user": handed.values["username"], "password": handed.values["password"]}
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(
            lambda: Slow(host="127.0.0.1", port=ward.port, ssl_ca=str(ward.ca_file), ssl_verify_cert=True, **given)
        )
        assert asked.wait(5)
        assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED
        answer.set()
        assert isinstance(coming.exception(10), pymysql.Error)
    assert ward.traces(handed.lease.id) == 0


def test_ending_twice_and_concurrently_succeeds(world: World, ward: Mariadb, handed: Handed) -> None:
    lease = to_end(world, handed)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: KIND.end(world.ender.vault, lease), range(4)))
    assert outcomes == [CONFIRMED] * 4


def test_guest_is_ended_while_openbao_is_down(world: World, ward: Mariadb, handed: Handed) -> None:
    ender = vault_of(world.settings, "ender")
    stranger = LeaseToEnd("l0", f"{world.parts.tag}-l0", WARD_DEIDENTIFIED)
    assert KIND.end(ender, stranger) == CONFIRMED
    session = log_in(ward, handed)
    world.stack.bao.stop()
    try:
        assert KIND.end(ender, to_end(world, handed)) == CONFIRMED
        assert not lives(session)
        with pytest.raises(NotEnded, match="key store is not responding"):
            KIND.end(vault_of(world.settings, "ender"), stranger)
    finally:
        world.stack.bao.start()
        close(session)
    assert ward.traces(handed.lease.id) == 0


@pytest.mark.whole
def test_frozen_server_times_out_and_is_named(world: World, ward: Mariadb, handed: Handed) -> None:
    began = time.monotonic()
    with ward.frozen():
        with pytest.raises((NotEnded, BackendDown)):
            KIND.end(world.ender.vault, to_end(world, handed, by_hand=True))
        assert time.monotonic() - began < 10
        answer = KIND.list_credentials(world.ender.vault, world.parts.tag, [BoundSlice(WARD_DEIDENTIFIED)])
        assert set(answer.unasked) == {"ward"}
    assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED


def test_lease_lost_by_openbao_is_ended_directly(world: World, ward: Mariadb, handed: Handed) -> None:
    session, lease = log_in(ward, handed), world.lease(handed.lease.id)
    lost = LeaseToEnd(lease.id, lease.handle, WARD_DEIDENTIFIED, "database/creds/gk-gone/nothing")
    assert KIND.end(world.ender.vault, lost) == CONFIRMED
    assert not lives(session)
    close(session)


def test_manual_command_for_the_operator_ends_the_user(world: World, ward: Mariadb, handed: Handed) -> None:
    session = log_in(ward, handed)
    ward.ask(KIND.by_hand(to_end(world, handed)))
    assert not lives(session)
    close(session)
    assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED


def test_unconfirmed_end_is_not_accepted(
    world: World, ward: Mariadb, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes the procedure away that ends guests: the user lives on, and is said to."""
    ward.ask("REVOKE EXECUTE ON PROCEDURE guestkey_ops.end_guest FROM guestkey_watch@'%'")
    try:
        with pytest.raises(NotEnded):
            KIND.end(world.ender.vault, to_end(world, handed, by_hand=True))
        assert ward.traces(handed.lease.id) == 1
    finally:
        ward.ask("GRANT EXECUTE ON PROCEDURE guestkey_ops.end_guest TO guestkey_watch@'%'")
    assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED


def test_renewal_extends_the_openbao_lease(world: World, ward: Mariadb, handed: Handed) -> None:
    KIND.renew(world.parts.vault, to_end(world, handed), 200)
    with pytest.raises(BackendDown):
        KIND.renew(world.parts.vault, to_end(world, handed), 25 * 3600)
    KIND.end(world.ender.vault, to_end(world, handed))


def test_never_activated_user_and_sessions_expire(world: World, ward: Mariadb) -> None:
    """OpenBao ends a user with its token, without any sweeper: here after two seconds instead of sixty."""
    _, dataset = ward_guest(world)
    slice_id, lease_id = world.slice_id(dataset), f"l{'0' * 24}zy"
    policies = KIND.policies(slice_id, "read")
    token = world.parts.vault.child_token(f"{world.parts.tag}-{lease_id}", lease_id, policies, ttl=2)
    made = world.parts.vault.database_credential(token, role_of(slice_id))
    session = ward.guest({"username": made.username, "password": made.password})
    end = time.monotonic() + 10
    while ward.traces(lease_id):
        assert time.monotonic() < end
        time.sleep(0.2)
    assert not lives(session)
    close(session)


def test_user_without_a_lease_is_found_and_ended(world: World, ward: Mariadb) -> None:
    _, dataset = ward_guest(world)
    slice_id, lease_id = world.slice_id(dataset), f"l{'0' * 24}zx"
    policies = KIND.policies(slice_id, "read")
    token = world.parts.vault.child_token(f"{world.parts.tag}-{lease_id}", lease_id, policies, ttl=60)
    world.parts.vault.database_credential(token, role_of(slice_id))
    strays = reconciling.reconcile(world.ender).strays
    assert [stray.confirmed_by for stray in strays if stray.lease == lease_id] == [CONFIRMED]
    assert ward.traces(lease_id) == 0


def test_only_users_of_this_installation_are_listed(world: World, ward: Mariadb, handed: Handed) -> None:
    ward.ask("CREATE USER gk_zzzzzz_l1")
    ward.ask("CREATE USER gk_strange")
    bounds = [BoundSlice(WARD_DEIDENTIFIED | {"connection": "nowhere"}), BoundSlice(WARD_DEIDENTIFIED)]
    answer = KIND.list_credentials(world.ender.vault, world.parts.tag, bounds)
    ward.ask("DROP USER gk_zzzzzz_l1, gk_strange")
    assert answer.handles[handed.lease.handle].bound.connection == "ward"
    assert answer.asked == {"ward"}
    assert set(answer.unasked) == {"nowhere"}, "a silent place is named, never left out"
    assert answer.other_tags == {"zzzzzz"}
    assert all(handle.startswith(f"{world.parts.tag}-l") for handle in answer.handles)
    KIND.end(world.ender.vault, to_end(world, handed))


def test_operator_ends_users_without_records_and_openbao(
    world: World, ward: Mariadb, handed: Handed, tmp_path: Path
) -> None:
    login, session = tmp_path / "watch", log_in(ward, handed)
    login.write_text(world.ender.vault.secret("connections/ward/watch")["url"])
    variables = world.stack.environment() | {
        "GUESTKEY_POSTGRES_CONNECTIONS": "{}",
        "GUESTKEY_MARIADB_CONNECTIONS": json.dumps({"ward": ward.place}),
        "GUESTKEY_DATABASE_URL": "postgresql://guestkey_app:x@127.0.0.1:1/guestkey",
        "GUESTKEY_BAO_ADDR": "http://127.0.0.1:1",
    }
    words = ("end-everything", "--yes", "--installation", world.parts.tag, "--login", f"ward={login}")
    ran = command(words, variables)
    assert ran.returncode == 0, ran.stderr
    assert f"✓ {handed.lease.id}\tmariadb\t{CONFIRMED}" in ran.stdout
    assert not lives(session)
    close(session)
