"""What a guest of SFTP can do to keep a session, or to hinder others: it ends all the same, and nobody waits.

`docs/guests-who-fight.md` has the whole table. What is held open here is tried on Debian's sshd with the files of
`deploy/sshd`; who runs what there is asked of the system, not of what ends it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from broker.kinds.discovery import kinds
from broker.kinds.values import NotEnded
from broker.leases.issuing import Handed
from tests.support.disks import fill, frozen_disk, make_room, small_disk
from tests.support.sftp_desk import Desk, configured, gone, open_desk
from tests.support.sftp_fighting import CREATING, FIGHTS, WRITING, Fight, running_as
from tests.support.sshd import SftpHost
from tests.support.waiting import until
from tests.support.world import World

KIND = kinds["ssh"]
CONFIRMED = "sftp host: barred, no session"
# What keeps the host busiest comes last, so that the others are under way before.
AT_ONCE = (
    "client stopped",
    "many sessions over one connection",
    "half an upload",
    "syncing",
    "before authentication",
    "reconnecting",
)
DECLARED = KIND.ending.open_sessions or 0


@pytest.fixture
def desk(world: World, sftp: SftpHost, tmp_path: Path) -> Desk:
    """A desk whose slices hold a file without end."""
    made = open_desk(world, sftp, tmp_path)
    for name in ("deidentified", "labels"):
        with (made.path(name) / "big").open("wb") as file:
            file.truncate(1 << 36)
    return made


def _end(desk: Desk, handed: Handed) -> str:
    """End a lease and hold the time it took to what the kind declares."""
    desk.revoke(handed)
    began = time.monotonic()
    said = KIND.end(desk.world.ender.vault, desk.to_end(handed))
    assert time.monotonic() - began < DECLARED
    return said


def _end_as_the_worker_does(desk: Desk, handed: Handed) -> str:
    """End a lease, again at once where something is left, and hold it all to what the kind declares."""
    latest = time.monotonic() + DECLARED
    while True:
        try:
            return _end(desk, handed)
        except NotEnded:
            # A killed process is gone once it was given a processor again.
            assert time.monotonic() < latest, "It did not end within what is declared"


def _on_record(desk: Desk, handed: Handed) -> set[str]:
    """The sshd processes that the host has on record for a lease."""
    found = set()
    for file in (desk.host.prefix / "run/guestkey/sessions").iterdir():
        # A record may be replaced or taken away while it is looked at.
        with suppress(FileNotFoundError):
            if handed.lease.handle in file.read_text():
                found.add(file.name)
    return found


@contextmanager
def _fighting(desk: Desk, handed: Handed, what: str) -> Iterator[Fight]:
    with Fight(desk.guest(handed)) as fight:
        FIGHTS[what](fight)
        until(lambda: _on_record(desk, handed), what="a session on record")
        yield fight


def _account(handed: Handed) -> str:
    assert handed.values is not None
    return handed.values["user"]


@pytest.mark.parametrize("what", FIGHTS)
def test_open_work_at_the_time_of_ending_delays_no_end(desk: Desk, what: str) -> None:
    handed = desk.issue("labels", "write")
    with _fighting(desk, handed, what):
        assert _end_as_the_worker_does(desk, handed) == CONFIRMED
        assert running_as(_account(handed)) == []


def test_combined_attacks_end_and_others_are_served(desk: Desk, tmp_path: Path) -> None:
    guests: list[Handed] = []
    with ExitStack() as fights, ThreadPoolExecutor(1) as pool:
        for what in AT_ONCE:
            somebody = open_desk(desk.world, desk.host, tmp_path)
            guests.append(somebody.issue("labels", "write"))
            fights.enter_context(_fighting(somebody, guests[-1], what))
        other = desk.issue()
        transfer = desk.guest(other).transfer("big")
        to_end = [desk.to_end(handed) for handed in guests]
        for handed in guests:
            desk.revoke(handed)
        began = time.monotonic()
        ending = pool.submit(KIND.end_many, desk.world.ender.vault, to_end)
        assert _end(desk, other) == CONFIRMED
        assert set(ending.result(60).values()) == {CONFIRMED}
        assert time.monotonic() - began < DECLARED
        assert gone(transfer) < DECLARED
        assert running_as(_account(guests[0])) == []
        assert desk.guest(desk.issue()).gets_in()


def test_hanging_disk_affects_no_other_guest_and_confirms_no_end(desk: Desk, tmp_path: Path) -> None:
    """A process that waits for it can be killed by nobody: until it answers the lease has not ended, and says why."""
    with frozen_disk(desk.path("labels") / "in", tmp_path / "image") as freeze:
        stuck = desk.issue("labels", "write")
        with Fight(desk.guest(stuck)) as fight:
            session = fight.sftp()
            handle = session.opened("in/file", WRITING | CREATING)
            freeze()
            session.write_at(handle, 0, b"x" * 1000)
            until(lambda: "D" in {state for _, state in _states(stuck)}, what="a write that waits")
            others = [desk.issue()]
            assert desk.guest(others[0]).gets_in(), "which leaves a record of a session that is gone"
            others.append(desk.issue())
            with pytest.raises(NotEnded, match="1 processes were killed and are still there"):
                _end(desk, stuck)
            assert {_end(desk, other) for other in others} == {CONFIRMED}
            # What is known to the host of sessions that are gone is forgotten; of this one it must not be.
            until(lambda: len(_on_record(desk, stuck)) == 1, seconds=30, what="the host's tidying")
            began = time.monotonic()
            for _ in range(3):
                with pytest.raises(NotEnded, match="1 processes"):
                    _end(desk, stuck)
            assert time.monotonic() - began < DECLARED, "what is left over is not waited for again"
            desk.world.wait_sweeping(stuck.lease.id, "revoke_failed")
            assert "still there" in desk.world.lease(stuck.lease.id).last_error
    until(lambda: not running_as(_account(stuck)), what="the end of what waited")
    assert _end(desk, stuck) == CONFIRMED


def _states(handed: Handed) -> list[tuple[int, str]]:
    """Processes of a lease's account and what each does: D is one that no signal reaches."""
    found = []
    for pid in running_as(_account(handed)):
        with suppress(FileNotFoundError):
            found.append((pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]))
    return found


def test_full_slice_disk_does_not_prevent_ending(desk: Desk) -> None:
    inbox = desk.path("labels") / "full"
    inbox.mkdir(exist_ok=True)
    inbox.chmod(0o777)
    with small_disk(inbox, "size=1m"):
        handed = desk.issue("labels", "write")
        with Fight(desk.guest(handed)) as fight:
            session = fight.sftp()
            handle = session.opened("full/all", WRITING | CREATING)
            written = [session.written(handle, number * 30_000, b"x" * 30_000) for number in range(60)]
            assert not written[-1], "the disk is full"
            assert _end(desk, handed) == CONFIRMED
            assert running_as(_account(handed)) == []


def test_full_bar_disk_ends_sessions_and_reports_why_no_end_is_confirmed(desk: Desk) -> None:
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    folder = desk.host.prefix / "run/guestkey/barred"
    with small_disk(folder, f"size=64k,nr_inodes={len(list(folder.iterdir())) + 9}"):
        fill(folder)
        with pytest.raises(NotEnded, match="could not bar the lease: is /run full"):
            _end(desk, handed)
        assert gone(transfer) < DECLARED
    assert _end(desk, handed) == CONFIRMED


def test_full_session_disk_refuses_unrecorded_logins(desk: Desk) -> None:
    handed = desk.issue()
    guest, folder = desk.guest(handed), desk.host.prefix / "run/guestkey/sessions"
    with small_disk(folder, "size=256k,nr_inodes=1000"):
        transfer = guest.transfer("big")
        # What others left behind there is taken away meanwhile, which makes room.
        until(lambda: len(list(folder.iterdir())) == 1, what="the host's tidying")
        fill(folder)
        assert not guest.gets_in()
        assert not [file for file in folder.iterdir() if file.name.startswith(".")], "no room is kept by what failed"
        make_room(folder)
        assert guest.gets_in()
        fill(folder)
        assert _end(desk, handed) == CONFIRMED
        assert gone(transfer) < DECLARED


def test_connection_limit_applies_to_one_lease_only(desk: Desk) -> None:
    handed = desk.issue()
    few = configured(desk.host, "CONNECTION=", "MOST_CONNECTIONS=3\nCONNECTION=")
    with few, Fight(desk.guest(handed)) as fight, ThreadPoolExecutor(5) as pool:
        tried = list(pool.map(lambda _: _let_in(fight), range(5)))
        # Of those that come at the same time, more may be refused; never fewer.
        while sum(tried) < 3:
            tried.append(_let_in(fight))
        assert sum(tried) == 3 and not _let_in(fight)
        assert desk.guest(desk.issue()).gets_in(), "another guest of the same account"
        assert _end(desk, handed) == CONFIRMED


def _let_in(fight: Fight) -> bool:
    try:
        fight.sftp()
    except ConnectionRefusedError:
        return False
    return True


def test_connections_without_login_keep_no_session_open(desk: Desk) -> None:
    """They can use up sshd's places for log-ins; the worker's line to the host is open already."""
    handed = desk.issue()
    transfer = desk.guest(handed).transfer("big")
    KIND.end(desk.world.ender.vault, desk.to_end(desk.issue()))
    with ExitStack() as sockets:
        _knock(desk.host.port, sockets)
        assert _end(desk, handed) == CONFIRMED
        assert gone(transfer) < DECLARED


def _knock(port: int, sockets: ExitStack) -> None:
    """Take every place for log-ins that sshd has."""
    said = b"SSH-2.0"
    while said.startswith(b"SSH-2.0"):
        caller = sockets.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        said = caller.recv(20)
