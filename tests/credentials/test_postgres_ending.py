"""How a guest's PostgreSQL user ends when all is against it: a guest that clings, OpenBao down, a frozen server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import psycopg
import pytest

from broker.keystore.vault import VaultRefused
from broker.kinds.names import user_of
from broker.kinds.postgres import ending as postgres_ending
from broker.kinds.postgres.kind import CONFIRMED, PostgresKind
from broker.kinds.postgres.sessions import watch_session
from broker.kinds.values import BoundSlice, LeaseToEnd, NotEnded
from broker.leases.issuing import Handed
from broker.leases.sweeping import CLAIM_SECONDS
from broker.runtime.parts import vault_of
from tests.support.clinging import clinging
from tests.support.freezing import freeze
from tests.support.world import DEIDENTIFIED, World

KIND = PostgresKind()


@pytest.fixture
def handed(world: World) -> Handed:
    """A credential in use."""
    signed, dataset, _ = world.guest()
    return world.issue(signed, dataset)


def to_end(world: World, handed: Handed, *, by_hand: bool = False) -> LeaseToEnd:
    """The lease as the worker would hand it to the kind; by hand: without OpenBao's lease."""
    lease = world.lease(handed.lease.id)
    return LeaseToEnd(lease.id, lease.handle, DEIDENTIFIED, None if by_hand else lease.backend_lease_id)


def reconnecting(world: World, handed: Handed) -> AbstractContextManager[list[psycopg.Connection[tuple[Any, ...]]]]:
    """A holder who logs in as often as it can."""
    return clinging(partial(world.connect, handed), psycopg.Error, psycopg.Connection.close)


def together(world: World, handed: Sequence[Handed]) -> list[str]:
    """End them as the worker does; what became of each, in words."""
    outcomes = KIND.end_many(world.ender.vault, [to_end(world, one) for one in handed])
    assert outcomes.keys() == {one.lease.id for one in handed}
    return [str(outcomes[one.lease.id]) for one in handed]


@pytest.mark.parametrize("by_hand", [False, True], ids=["through OpenBao", "by hand"])
def test_constantly_reconnecting_guest_is_ended(world: World, handed: Handed, by_hand: bool) -> None:
    for _ in range(3):
        with reconnecting(world, handed) as sessions:
            assert KIND.end(world.ender.vault, to_end(world, handed, by_hand=by_hand)) == CONFIRMED
            assert sessions
            assert not any(_reads(session) for session in sessions)
        signed, dataset, _ = world.guest()
        handed = world.issue(signed, dataset)
    KIND.end(world.ender.vault, to_end(world, handed))


def test_constantly_reconnecting_guest_is_ended_among_many(world: World) -> None:
    for _ in range(3):
        signed, dataset, _ = world.guest()
        held = [world.issue(signed, dataset) for _ in range(5)]
        with reconnecting(world, held[0]) as one, reconnecting(world, held[3]) as other:
            assert together(world, held) == [CONFIRMED] * 5
            assert one and other
            assert not any(_reads(session) for session in (*one, *other))
        assert not any(world.roles_of(each.lease.id) for each in held)


def test_many_sessions_end_at_once(world: World) -> None:
    """PostgreSQL waits 100 ms for each session: ended one after the other, these would take two seconds and more."""
    held = []
    for _ in range(5):
        signed, dataset, _ = world.guest()
        held += [world.issue(signed, dataset) for _ in range(4)]
    sessions = [world.connect(one) for one in held]
    began = time.monotonic()
    assert together(world, held) == [CONFIRMED] * len(held)
    assert time.monotonic() - began < 2
    assert not any(_reads(session) for session in sessions)


def test_undroppable_user_does_not_stop_ending_others(world: World) -> None:
    signed, dataset, _ = world.guest()
    held = [world.issue(signed, dataset) for _ in range(4)]
    user = user_of(held[2].lease.handle)
    with world.admin("postgres") as admin:
        admin.execute(f'CREATE TABLE public.owned_by_one (x int); ALTER TABLE public.owned_by_one OWNER TO "{user}"')
    sessions = [world.connect(one) for one in held]
    try:
        said = together(world, held)
        assert [one == CONFIRMED for one in said] == [True, True, False, True]
        assert "1 role, 0 sessions" in said[2]
        assert not any(_reads(session) for session in sessions)
        with pytest.raises(psycopg.OperationalError):
            world.connect(held[2])
    finally:
        with world.admin("postgres") as admin:
            admin.execute("DROP TABLE public.owned_by_one")
    assert together(world, [held[2]]) == [CONFIRMED]


def test_session_of_a_dropped_user_is_found_and_ended(world: World) -> None:
    """As OpenBao's default statements leave it: the user dropped, the session reading on without a name."""
    signed, dataset, _ = world.guest()
    held = [world.issue(signed, dataset) for _ in range(2)]
    session = world.connect(held[0])
    with world.admin() as admin:
        user = user_of(held[0].lease.handle)
        admin.execute(f'DROP OWNED BY "{user}"; DROP ROLE "{user}"')
    assert _reads(session)
    assert together(world, held) == [CONFIRMED] * 2
    assert not _reads(session)


@pytest.mark.whole
def test_server_frozen_while_ending_many_times_out(world: World) -> None:
    signed, dataset, _ = world.guest()
    held = [world.issue(signed, dataset) for _ in range(3)]
    ender = vault_of(world.settings, "ender")
    ender.secret("connections/data/watch", remembered=True)
    leases = [to_end(world, one) for one in held]
    freeze(world.stack.postgres)
    began = time.monotonic()
    try:
        outcomes = KIND.end_many(ender, leases)
    finally:
        freeze(world.stack.postgres, thaw=True)
    assert time.monotonic() - began < CLAIM_SECONDS
    assert all(isinstance(outcome, NotEnded) for outcome in outcomes.values())
    assert together(world, held) == [CONFIRMED] * 3


def test_openbao_lease_of_a_manually_ended_user_is_removed_at_once(world: World, handed: Handed) -> None:
    lease = to_end(world, handed)
    assert together(world, [handed]) == [CONFIRMED]
    times = []
    for _ in range(3):
        began = time.monotonic()
        KIND.settle(world.ender.vault, lease)
        times.append(time.monotonic() - began)
    assert min(times) < 0.1
    with pytest.raises(VaultRefused):
        world.parts.vault.renew_lease(lease.backend_lease_id or "", 60)


def test_held_cursors_transactions_and_locks_end_with_the_user(world: World, handed: Handed) -> None:
    assert handed.values is not None
    session = world.connect(handed)
    pid = session.info.backend_pid
    session.execute(f"BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM {handed.values['relation']}; COMMIT")
    session.execute(f"BEGIN; LOCK TABLE {handed.values['relation']} IN ACCESS SHARE MODE")
    KIND.end(world.ender.vault, to_end(world, handed))
    with pytest.raises(psycopg.OperationalError):
        session.execute("FETCH ALL FROM kept")
    session.close()
    with world.admin() as admin:
        assert admin.execute("SELECT count(*) FROM pg_locks WHERE pid = %s", (pid,)).fetchone() == (0,)


def test_ending_twice_and_concurrently_succeeds(world: World, handed: Handed) -> None:
    lease = to_end(world, handed)
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: _outcome(world, lease), range(4)))
    assert CONFIRMED in outcomes
    assert KIND.end(world.ender.vault, lease) == CONFIRMED


def test_guest_is_ended_while_openbao_is_down(world: World, handed: Handed) -> None:
    ender = vault_of(world.settings, "ender")
    stranger = LeaseToEnd("l0", f"{world.parts.tag}-l0", DEIDENTIFIED)
    assert KIND.end(ender, stranger) == CONFIRMED
    session = world.connect(handed)
    world.stack.bao.stop()
    try:
        assert KIND.end(ender, to_end(world, handed)) == CONFIRMED
        assert not _reads(session)
        with pytest.raises(NotEnded, match="key store is not responding"):
            KIND.end(vault_of(world.settings, "ender"), stranger)
    finally:
        world.stack.bao.start()
        session.close()
    assert world.roles_of(handed.lease.id) == 0
    assert KIND.end(ender, to_end(world, handed)) == CONFIRMED


@pytest.mark.whole
def test_server_frozen_while_ending_times_out(world: World, handed: Handed, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = postgres_ending.UserSnapshot

    def freezing(*arguments: Any) -> postgres_ending.UserSnapshot:
        freeze(world.stack.postgres)
        return looked(*arguments)

    monkeypatch.setattr(postgres_ending, "UserSnapshot", freezing)
    began = time.monotonic()
    try:
        with pytest.raises(NotEnded):
            KIND.end(world.ender.vault, to_end(world, handed, by_hand=True))
    finally:
        freeze(world.stack.postgres, thaw=True)
    assert time.monotonic() - began < 10
    monkeypatch.undo()
    assert KIND.end(world.ender.vault, to_end(world, handed)) == CONFIRMED


def test_lease_given_up_by_openbao_is_ended(world: World, handed: Handed) -> None:
    """What the user owns elsewhere makes the revocation statements fail."""
    user = user_of(handed.lease.handle)
    with world.admin("postgres") as admin:
        admin.execute(
            f'CREATE TABLE public.owned_elsewhere (x int); ALTER TABLE public.owned_elsewhere OWNER TO "{user}"'
        )
    lease = to_end(world, handed)
    session = world.connect(handed)
    with pytest.raises(NotEnded, match="PostgreSQL"):
        KIND.end(world.ender.vault, lease)
    assert not _reads(session), "the door is closed and sessions ended even where the user cannot be dropped"
    with pytest.raises(psycopg.OperationalError):
        world.connect(handed)
    session.close()
    with world.admin("postgres") as admin:
        admin.execute("DROP TABLE public.owned_elsewhere")
    assert KIND.end(world.ender.vault, lease) == CONFIRMED


def test_only_users_of_this_installation_are_listed_with_their_connection(world: World, handed: Handed) -> None:
    with world.admin() as admin:
        admin.execute("CREATE ROLE gk_zzzzzz_l1 LOGIN; CREATE ROLE guestkeeper LOGIN")
    bindings = [DEIDENTIFIED | {"connection": "nowhere"}, DEIDENTIFIED, DEIDENTIFIED | {"table": "other"}]
    bounds = [BoundSlice(binding) for binding in bindings]
    answer = KIND.list_credentials(world.ender.vault, world.parts.tag, bounds)
    shown = answer.handles
    with world.admin() as admin:
        admin.execute("DROP ROLE gk_zzzzzz_l1; DROP ROLE guestkeeper")
    assert shown[handed.lease.handle].bound.connection == "data"
    assert answer.asked == {"data"}
    assert set(answer.unasked) == {"nowhere"}, "a silent place is named, never left out"
    assert "zzzzzz" in answer.other_tags
    assert all(handle.startswith(f"{world.parts.tag}-") for handle in shown)
    KIND.end(world.ender.vault, to_end(world, handed))
    assert handed.lease.handle not in KIND.list_credentials(world.ender.vault, world.parts.tag, bounds).handles


@pytest.mark.parametrize("who", ["postgres", "guestkey_watch", "guestkey_minter", "gk", "%", "gkx1"])
def test_worker_procedures_affect_only_guests(world: World, who: str) -> None:
    with watch_session(world.ender.vault, "data") as hands, world.admin() as bystander:
        for function in ("close_door", "end_sessions", "drop_user"):
            hands.execute(f"SELECT guestkey_ops.{function}(%s)", (who,))
        assert bystander.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'postgres'").fetchone() == (True,)


def _reads(session: psycopg.Connection[tuple[Any, ...]]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _outcome(world: World, lease: LeaseToEnd) -> str:
    try:
        return KIND.end(world.ender.vault, lease)
    except NotEnded:
        return "not yet"
