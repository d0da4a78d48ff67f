"""The broker's hand at SFTP hosts, and slices made there."""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.base.errors import BackendDown, Invalid
from broker.embedded.children import free_port
from broker.keystore.vault import VaultRefused
from broker.kinds.discovery import kinds
from broker.kinds.ssh import host_connection
from broker.kinds.ssh.host_connection import ENDER, SETUP, HostRefused
from broker.kinds.ssh.kind import account_of
from broker.kinds.ssh.public_keys import Certificate
from broker.kinds.values import BoundSlice, LeaseToEnd, NotEnded
from broker.runtime.parts import vault_of
from tests.support.sftp_desk import Desk, open_desk, signed_again
from tests.support.sshd import CONNECTION, SftpGuest, SftpHost, key_pair
from tests.support.world import World


def test_each_helper_key_can_run_only_its_own_commands(desk: Desk) -> None:
    place, world = desk.host.place, desk.world
    setup, issuer = vault_of(world.settings, "setup"), world.parts.vault
    assert host_connection.ask(world.ender.vault, ENDER, place, "check") == {"check": "ok"}
    assert host_connection.ask(setup, SETUP, place, "check") == {"check": "ok"}
    for line in ("add x acme", "remove x"):
        with pytest.raises(HostRefused):
            host_connection.ask(world.ender.vault, ENDER, place, *line.split())
    for line in ("end token-abc123-l0123456789", "list"):
        with pytest.raises(HostRefused):
            host_connection.ask(setup, SETUP, place, *line.split())
    for role in (ENDER, SETUP):
        with pytest.raises(BackendDown):
            host_connection.ask(vault_of(world.settings, "issuer"), role, place, "check")
    with pytest.raises(VaultRefused):
        issuer.sign_ssh("guestkey-ender", key_pair()[1], "guestkey-ender", seconds=60)


def test_helper_key_can_run_only_one_program(desk: Desk) -> None:
    private, public = key_pair()
    certificate = desk.world.ender.vault.sign_ssh(ENDER, public, ENDER, seconds=60)
    folder = desk.folder / "hand"
    folder.mkdir()
    values = {"certificate": certificate, "user": "guestkey-hand", "host": "127.0.0.1", "port": str(desk.host.port)}
    values["host_key"] = f"[127.0.0.1]:{desk.host.port} {desk.host.host_key}"
    hand = SftpGuest(folder, private, values)
    for typed in ("id", "end x; id", "list $(id)", "end", "list more", "check\nadd", "serve", "setup add x acme"):
        done = hand.ssh("HOST", typed)
        assert "uid=" not in done.stdout and '"sessions": [' not in done.stdout, typed
    assert not hand.gets_in()
    assert "administratively prohibited" in hand.ssh("-W", f"127.0.0.1:{desk.host.port}", "HOST").stderr


def test_open_sessions_end_without_openbao(desk: Desk) -> None:
    handed = desk.issue()
    host_connection.ask(desk.world.ender.vault, ENDER, desk.host.place, "check")
    desk.world.stack.bao.stop()
    try:
        assert kinds["ssh"].end(desk.world.ender.vault, desk.to_end(handed))
    finally:
        desk.world.stack.bao.start()


def test_silent_or_impostor_host_confirms_nothing(desk: Desk) -> None:
    to_end = desk.to_end(desk.issue())
    vault = desk.world.ender.vault
    silent = {**to_end.place, "port": str(free_port())}
    another = {**to_end.place, "host_key": key_pair()[1]}
    for place in (silent, another, {}):
        with pytest.raises(BackendDown) as down:
            kinds["ssh"].end(vault, LeaseToEnd(to_end.id, to_end.handle, to_end.binding, place=place))
        assert down.value.backend == "ssh" and down.value.advice
        shown = kinds["ssh"].list_credentials(vault, desk.world.parts.tag, [BoundSlice(to_end.binding, place)])
        assert not shown.asked and shown.unasked.keys() == {CONNECTION}


@pytest.mark.parametrize("said", ["", "nonsense", "[]", '{"barred": true, "sessions": 1, "processes": 0}', "{}",
                                  '{"barred": false, "sessions": 0, "processes": 0}'])  # fmt: skip
def test_invalid_host_answer_confirms_nothing(desk: Desk, said: str) -> None:
    program = desk.host.prefix / "usr/local/lib/guestkey/guestkey-sessions"
    before = program.read_text()
    to_end = desk.to_end(desk.issue())
    program.write_text(f"#!/bin/sh\nwhile read -r line; do echo '{said}'; done\n")
    try:
        with pytest.raises((NotEnded, BackendDown)):
            kinds["ssh"].end(vault_of(desk.world.settings, "ender"), to_end)
    finally:
        program.write_text(before)


def test_invalid_handle_is_not_sent(desk: Desk) -> None:
    for handle in ("a b", "x;reboot", "$(reboot)", "a\nb", ""):
        with pytest.raises((ValueError, NotEnded)):
            kinds["ssh"].end(desk.world.ender.vault, LeaseToEnd("l", handle, {}, place=desk.host.place))


def test_slice_with_an_unsafe_directory_fails_with_the_reason(desk: Desk) -> None:
    setup, root = vault_of(desk.world.settings, "setup"), desk.host.prefix / "srv/guestkey/acme"
    (root / "file").write_text("")
    (root / "link").symlink_to("/etc")
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    for name, why in (
        ("none", "no directory"),
        ("file", "not a directory"),
        ("link", "not a directory"),
        ("open", "chmod"),
    ):
        bound = BoundSlice({"connection": CONNECTION, "directory": f"acme/{name}"}, desk.host.place)
        with pytest.raises(Invalid, match=why):
            kinds["ssh"].register(setup, f"sl_{secrets.token_hex(4)}", bound)
    with pytest.raises(Invalid, match="no SFTP host"):
        kinds["ssh"].register(setup, "sl_1", BoundSlice({"connection": "other", "directory": "acme"}))


def test_slice_setup_and_removal_can_be_repeated(world: World, sftp: SftpHost, tmp_path: Path) -> None:
    desk = open_desk(world, sftp, tmp_path, of_its_own=True)
    setup, kind = vault_of(desk.world.settings, "setup"), kinds["ssh"]
    handed = desk.issue()
    guest, slice_id = desk.guest(handed), handed.lease.slice_id
    bound = BoundSlice(desk.to_end(handed).binding, desk.host.place)
    kind.register(setup, slice_id, bound)
    assert guest.gets_in()
    for _ in range(2):
        kind.unregister(setup, slice_id, bound)
    assert not guest.gets_in()
    with pytest.raises((VaultRefused, BackendDown)):
        signed_again(desk, handed)


def test_login_check_depends_on_every_parameter(desk: Desk) -> None:
    from broker.leases.host_log_ins import lets_in

    handed = desk.issue()
    assert handed.values is not None
    right = {
        "connection": CONNECTION,
        "handle": handed.lease.handle,
        "account": handed.values["user"],
        "certificate": handed.values["certificate"],
    }
    wrong = {
        "connection": ["", "data"],
        "handle": [handed.lease.id, "abc123-" + handed.lease.id, ""],
        "account": [account_of(handed.lease.slice_id, "write"), ""],
        "certificate": ["", "x y", signed_again(desk, handed, key=key_pair()[1])],
    }
    with desk.world.database.transaction() as tx:
        now = desk.world.now()
        assert lets_in(tx, kinds["ssh"], **right, now=now)
        assert not lets_in(tx, kinds["ssh"], **right, now=handed.lease.expires_at)
        for part, values in wrong.items():
            for value in values:
                assert not lets_in(tx, kinds["ssh"], **{**right, part: value}, now=now), part
    assert handed.lease.key_hash == hashlib.sha256(Certificate.read(right["certificate"]).public_key.encode()).digest()


def test_broken_connection_is_reopened(desk: Desk) -> None:
    vault = vault_of(desk.world.settings, "ender")
    assert host_connection.ask(vault, ENDER, desk.host.place, "check")
    open_ = host_connection._all[vault].line(ENDER, desk.host.place)._ssh
    assert open_ is not None
    open_.kill()
    assert host_connection.ask(vault, ENDER, desk.host.place, "check") == {"check": "ok"}


def test_hanging_host_times_out(desk: Desk) -> None:
    vault = vault_of(desk.world.settings, "ender")
    with socket.create_server(("127.0.0.1", 0)) as deaf, ThreadPoolExecutor(4) as hands:
        place = {**desk.host.place, "port": str(deaf.getsockname()[1])}
        began = time.monotonic()
        asked = [hands.submit(host_connection.ask, vault, ENDER, place, "check") for _ in range(4)]
        assert all(isinstance(one.exception(), BackendDown) for one in asked)
        # One finds out, and whoever waited behind it is told.
        assert time.monotonic() - began < 8


def test_many_leases_are_ended_over_one_connection(desk: Desk) -> None:
    vault, place = desk.world.ender.vault, desk.host.place
    many = [LeaseToEnd(f"l{n}", f"abc123-l{n:026d}", {}, place=place) for n in range(200)]
    with ThreadPoolExecutor(8) as hands:
        confirmed = set(hands.map(lambda lease: kinds["ssh"].end(vault, lease), many))
    assert confirmed == {"sftp host: barred, no session"}
    assert {f"token-{lease.handle}" for lease in many} <= desk.host.barred()


def test_leases_ended_together_need_one_request(desk: Desk) -> None:
    """As many as the worker ends at a time, and each has an answer of its own."""
    kind, place = kinds["ssh"], desk.host.place
    many = [LeaseToEnd(f"l{n}", f"abc123-l{n:026d}", {}, place=place) for n in range(1000, 1256)]
    barred = desk.host.prefix / f"run/guestkey/barred/token-{many[7].handle}"
    barred.symlink_to("/dev/null/nothing")
    try:
        outcomes = dict(kind.end_many(desk.world.ender.vault, many))
    finally:
        barred.unlink()
    said = outcomes.pop(many[7].id)
    assert isinstance(said, NotEnded) and "could not bar" in str(said)
    assert len(outcomes) == 255 and set(outcomes.values()) == {"sftp host: barred, no session"}


def test_host_of_an_earlier_release_gets_one_request_per_lease(desk: Desk) -> None:
    program = desk.host.prefix / "usr/local/lib/guestkey/guestkey-sessions"
    before, place, kind = program.read_text(), desk.host.place, kinds["ssh"]
    many = [LeaseToEnd(f"l{n}", f"abc123-l{n:026d}", {}, place=place) for n in range(2000, 2003)]
    program.write_text(
        """#!/bin/sh
        while read -r word one more; do
          if [ -n "$more" ]; then echo '{"refused": "that is not how it is asked"}'
          else echo '{"barred": true, "ended": 0, "sessions": 0, "processes": 0}'; fi
        done
        """
    )
    try:
        outcomes = kind.end_many(vault_of(desk.world.settings, "ender"), many)
    finally:
        program.write_text(before)
    assert set(outcomes.values()) == {"sftp host: barred, no session"} and len(outcomes) == 3


def test_silent_host_confirms_none_of_many(desk: Desk) -> None:
    kind, place = kinds["ssh"], {**desk.host.place, "port": str(free_port())}
    many = [LeaseToEnd(f"l{n}", f"abc123-l{n:026d}", {}, place=place) for n in range(3)]
    outcomes = kind.end_many(desk.world.ender.vault, many)
    assert len(outcomes) == 3 and all(isinstance(said, BackendDown) for said in outcomes.values())
