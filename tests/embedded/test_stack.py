"""The embedded servers as processes: found again after a stop, gone when their parent is killed, closed to others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from broker.embedded.children import StartFailed, free_port, require_free
from broker.embedded.postgres import PostgresServers
from broker.embedded.stack import Stack
from tests.support.world import World

KEEPER = """
import sys, time
from pathlib import Path
from broker.embedded.stack import Stack
stack = Stack(Path(sys.argv[1]))
stack.start()
stack.store.client().create_bucket(Bucket="kept")
stack.store.client().put_object(Bucket="kept", Key="a", Body=b"found again")
print(stack.bao.pid, stack.postgres.data.pid, stack.postgres.records.pid, stack.store.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path(f"/proc/{pid}").exists() else False


def test_stack_stops_with_its_parent_and_restarts_with_its_data() -> None:
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        keeper = subprocess.Popen([sys.executable, "-c", KEEPER, folder], stdout=subprocess.PIPE, text=True)
        assert keeper.stdout is not None
        pids = [int(word) for word in keeper.stdout.readline().split()]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        keeper.send_signal(signal.SIGKILL)
        keeper.wait(10)
        keeper.stdout.close()
        end = time.monotonic() + 60
        while any(alive(pid) for pid in pids):
            assert time.monotonic() < end, "a server outlived its parent"
            time.sleep(0.1)
        again = Stack(Path(folder))
        again.start()
        try:
            with psycopg.connect(again.postgres.url("watch", "data")) as connection:
                assert connection.execute("SELECT current_user").fetchone() == ("guestkey_watch",)
            kept = again.store.client().get_object(Bucket="kept", Key="a")["Body"].read()
            assert kept == b"found again", "killed with its parent, it has lost nothing"
        finally:
            again.stop()


def test_a_wrong_or_missing_password_is_refused(world: World) -> None:
    port = world.stack.ports.postgres
    for user, password in (("postgres", "wrong"), ("guestkey_app", "wrong"), ("postgres", "")):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(host="127.0.0.1", port=port, dbname="postgres", user=user, password=password)


def test_chosen_port_stays_reserved_until_used() -> None:
    chosen = [free_port() for _ in range(50)]
    lent = set()
    for _ in range(5000):
        with socket.socket() as anybody:
            anybody.bind(("127.0.0.1", 0))
            lent.add(anybody.getsockname()[1])
    assert len(set(chosen)) == len(chosen) and not lent & set(chosen)
    for port in chosen:
        require_free(port, "the portal")


def test_taken_port_is_reported_in_one_line(world: World) -> None:
    with pytest.raises(StartFailed, match=r"Port \d+, wanted for the portal, is taken"):
        require_free(world.stack.ports.postgres, "the portal")
    require_free(free_port(), "the portal")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE guestkey.event SET kind = 'x'",
        "DELETE FROM guestkey.event",
        "TRUNCATE guestkey.event",
        "DROP TABLE guestkey.event",
        "ALTER TABLE guestkey.event DISABLE TRIGGER ALL",
        "CREATE RULE quiet AS ON INSERT TO guestkey.event DO INSTEAD NOTHING",
        "INSERT INTO guestkey.event (number, id, kind, actor, subject, leaf) OVERRIDING SYSTEM VALUE"
        " VALUES (1, 'e', 'k', 'a', 's', 'x')",
        "INSERT INTO guestkey.event (id, at, kind, actor, subject, leaf)"
        " VALUES ('e', '2000-01-01', 'k', 'a', 's', 'x')",
        "UPDATE guestkey.event_personal SET value = 'x'",
        "DELETE FROM guestkey.event_personal",
        "UPDATE guestkey.policy_revision SET rules = ''",
        "DELETE FROM guestkey.lease",
        'DELETE FROM guestkey."grant"',
        "CREATE TABLE guestkey.mine (x int)",
        "CREATE TEMP TABLE mine (x int)",
        "SET ROLE guestkey_owner",
    ],
)
def test_application_role_cannot_change_events(world: World, statement: str) -> None:
    with (
        psycopg.connect(world.stack.postgres.url("app", "guestkey")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("login", ["registrar", "minter", "watch", "app", "owner"])
def test_no_database_login_is_a_superuser(world: World, login: str) -> None:
    with world.admin("guestkey" if login in ("app", "owner") else "data") as admin:
        row = admin.execute(
            "SELECT rolsuper, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s", (f"guestkey_{login}",)
        ).fetchone()
    assert row == (False, False, False)


def test_only_openbao_knows_the_minters_password(world: World) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(world.stack.postgres.url("minter", "data"))


def test_records_and_datasets_are_on_separate_servers(world: World) -> None:
    found = []
    for database in ("guestkey", "data"):
        with world.admin(database) as admin:
            names = admin.execute("SELECT datname FROM pg_database WHERE datname IN ('guestkey', 'data')").fetchall()
            roles = admin.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^guestkey_' ORDER BY 1").fetchall()
            found.append((names, [name for (name,) in roles]))
    assert found == [
        ([("guestkey",)], ["guestkey_app", "guestkey_owner"]),
        ([("data",)], ["guestkey_minter", "guestkey_reaper", "guestkey_registrar", "guestkey_watch"]),
    ]


def test_state_folder_with_one_server_for_everything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgresql").mkdir()
    (tmp_path / "postgresql" / "passwords.json").write_text('{"postgres": "x", "owner": "y", "app": "z"}')
    servers = PostgresServers(tmp_path, records_port=free_port(), data_port=free_port())
    with pytest.raises(StartFailed, match=r"one server for everything.*choose another STATE"):
        servers.start()
    assert [file.name for file in tmp_path.rglob("*")] == ["postgresql", "passwords.json"]


def test_another_port_can_be_chosen_if_the_default_is_taken(tmp_path: Path) -> None:
    """A port that nothing was ever served at is not kept."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [sys.executable, "-m", "broker.embedded", "up", "--state", str(tmp_path / "state"), "--port", port]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and f"Port {port}" in ran.stderr and "make up PORT=" in ran.stderr
    assert not (tmp_path / "state" / "ports.json").exists()
