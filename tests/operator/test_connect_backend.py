"""`guestkey connect-backend postgres` on a customer's server: OpenBao, PostgreSQL and TLS are real."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broker.base.errors import Invalid
from broker.embedded.stack import Stack
from broker.kinds.postgres.address import OLDEST, checked
from broker.operator.main import app
from broker.runtime.parts import Parts
from tests.cli.terminal import Terminal
from tests.support.servers import Customer, customer, debian, tls_front, wheel
from tests.support.world import World

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def bare() -> Iterator[Customer]:
    """A customer's PostgreSQL of today, nothing of ours in it."""
    with customer(wheel(), tls=False) as running:
        yield running


@pytest.fixture(scope="module")
def front(bare: Customer) -> Iterator[Customer]:
    """The same over TLS, with a certificate for `localhost`."""
    with tls_front(bare) as running:
        yield running


@pytest.fixture
def run(stack: Stack, parts: Parts, tmp_path: Path) -> Run:
    """Run the command as the operator, against a server."""
    assert parts.tag

    def connect(server: Customer, *arguments: str, host: str = "localhost", name: str = "warehouse") -> Result:
        options = {
            "--host": host,
            "--port": str(server.port),
            "--dbname": "warehouse",
            "--name": name,
            "--ca-file": str(server.ca_file),
            "--secrets": str(tmp_path / "secrets"),
            "--operator-secret-id-file": str(stack.bao.secret_id_file("guestkey-operator")),
        }
        given = [word for pair in options.items() if pair[0] not in arguments for word in pair]
        return CliRunner().invoke(
            app, ["connect-backend", "postgres", "--json", *given, *arguments], env=stack.environment()
        )

    return connect


def told(result: Result) -> Any:
    """The document on standard output."""
    assert result.stdout, result.stderr
    return json.loads(result.stdout)["data"]


def login(folder: Path, user: str, password: str) -> tuple[str, ...]:
    """Options that give the command a login."""
    file = folder / f"{user}.password"
    file.write_text(password)
    return ("--user", user, "--password-file", str(file))


def test_guided_connection_of_an_empty_database(
    run: Run, front: Customer, bare: Customer, stack: Stack, world: World, tmp_path: Path
) -> None:
    with bare.admin() as session:
        session.execute('CREATE SCHEMA "Odd ""name"; GRANT USAGE ON SCHEMA "Odd ""name" TO PUBLIC')
        session.execute("CREATE DATABASE elsewhere")
    first = run(front)
    assert first.exit_code == 9, first.stderr
    script = told(first)["sql"]
    assert "CREATE ROLE guestkey_minter" in script and "SCRAM-SHA-256$" in script
    passwords = [file.read_text() for file in (tmp_path / "secrets").iterdir()]
    assert len(passwords) == 3 and not any(password in first.output for password in passwords)
    result = tmp_path / "result"
    scripts: list[str] = []

    def administrator() -> str:
        """Run what was printed since last time, as the database's administrator does."""
        scripts.append(result.read_text().removeprefix("".join(scripts)))
        with bare.admin() as session:
            session.execute(scripts[-1])
        return "y\n"

    again = "Check again [y/N]:"
    secret_id = stack.bao.secret_id_file("guestkey-operator")
    done = Terminal(tmp_path, **stack.environment()).type(
        *("connect-backend", "postgres", "--secrets", str(tmp_path / "secrets")),
        answers=[
            ("Host of the database:", "localhost\n"),
            ("Port [5432]:", f"{front.port}\n"),
            ("Name of the database:", "warehouse\n"),
            ("Name that slices use for it:", "warehouse\n"),
            ("CA file [/etc/ssl/certs/ca-certificates.crt]:", f"{front.ca_file}\n"),
            (again, administrator),
            (again, administrator),
            ("File with the operator's secret id:", f"{secret_id}\n"),
        ],
        out=result,
    )
    assert done.code == 0, done.out
    assert scripts[0].startswith(script.splitlines()[0]), "prompts leave no trace on standard output"
    assert 'REVOKE ALL ON DATABASE "elsewhere" FROM PUBLIC;' in scripts[1] and "CREATE ROLE" not in scripts[1]
    advice, name, setting = re.split(
        r"^(GUESTKEY_\w+)=", result.read_text().removeprefix("".join(scripts)), flags=re.MULTILINE
    )
    assert "reserved_connections = 10" in advice and "REVOKE" not in advice
    assert name == "GUESTKEY_POSTGRES_CONNECTIONS"
    assert json.loads(setting)["warehouse"]["sslmode"] == "verify-full"
    assert "is confirmed gone" in done.out and "The database warehouse is connected." in done.out
    assert not any(password in done.out + result.read_text() for password in passwords)
    assert not (tmp_path / "secrets").exists()
    assert world.events("warehouse") == ["backend.connected"]
    with bare.admin() as session:
        assert session.execute("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'gk')").fetchone() == (0,)
    repeated = run(front)
    assert repeated.exit_code == 0, repeated.stderr
    assert told(repeated)["connected"] and not told(repeated)["new"]
    assert told(repeated)["postgres_connections"]["warehouse"]["sslmode"] == "verify-full"
    assert world.events("warehouse") == ["backend.connected"]


def test_unverified_server_gets_no_password(run: Run, front: Customer) -> None:
    wrong_name = run(front, host="127.0.0.1")
    assert wrong_name.exit_code == 1 and "is not for the name 127.0.0.1" in wrong_name.stderr
    with tls_front(front) as another:
        foreign = run(front, "--ca-file", str(another.ca_file))
    assert foreign.exit_code == 1 and "it is not signed by a trusted authority" in foreign.stderr
    for arguments, why in (
        (("--tls", "prefer"), "verify-full, or, knowingly unsafe"),
        (("--tls", "require"), "another server can pose"),
        (("--tls", "verify-ca"), "another server can pose"),
        (("--ca-file", "ca.pem"), "named from the root"),
        (("--ca-file", "/nonesuch"), "No certificates can be read"),
        (("--tls", "disable", "--host", "db.example.org"), "everybody on the way"),
        (("--host", "a,b"), "neither a host's name nor"),
        (("--dbname", "x{{password}}"), "A database's name"),
        (("--name", "Data"), "A connection's name"),
        (("--port", "0"), "between 1 and 65535"),
    ):
        refused = run(front, *arguments)
        assert refused.exit_code == 1 and why in refused.stderr, (arguments, refused.output)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("db.example.org", "db.example.org"),
        ("DB_1.example.org.", "DB_1.example.org"),
        ("datenbank.müller.example", "datenbank.xn--mller-kva.example"),
        ("データ.example", "xn--5ckp3n.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
def test_valid_host_names_are_accepted(given: str, meant: str) -> None:
    assert checked("data", given, 5432, "data", "require", None, unsafe_tls=True).host == meant


@pytest.mark.parametrize("given", ["", ".", "a,b", "a b", "a..b", "/tmp", "[::1]", "a" * 64, "-a", "x@y", "ﷺ"])
def test_invalid_host_names_are_refused(given: str) -> None:
    with pytest.raises(Invalid):
        checked("data", given, 5432, "data", "require", None, unsafe_tls=True)


def test_debian_server_is_verified_over_tls_and_by_version(run: Run, tmp_path: Path) -> None:
    with customer(debian(), tls=True) as server:
        with server.admin() as session:
            session.execute("CREATE ROLE looker LOGIN PASSWORD 'looks'")
            assert session.info.server_version
            old = session.info.server_version < OLDEST * 10000
        looker = login(tmp_path, "looker", "looks")
        assert "is not for the name" in run(server, *looker, host="127.0.0.1").stderr
        found = run(server, "--check", *looker)
        assert found.exit_code == (1 if old else 9)
        assert ("Guestkey needs 16 or newer" in found.stderr) == old
        plain = run(server, "--check", "--tls", "disable", *looker, host="127.0.0.1")
        assert plain.exit_code == found.exit_code


def test_non_superuser_login_applies_what_it_can(run: Run, tmp_path: Path) -> None:
    with customer(wheel(), tls=False) as server:
        plain = ("--tls", "disable")
        with server.admin() as session:
            session.execute("CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD 'mends'")
            session.execute("GRANT pg_signal_backend TO dba WITH ADMIN TRUE")
            session.execute("ALTER DATABASE warehouse OWNER TO dba")
            session.execute("CREATE DATABASE elsewhere")
        superuser = run(server, *plain, *login(tmp_path, "postgres", server.password), "--apply")
        assert superuser.exit_code == 1 and "is a superuser" in superuser.stderr
        wrong = run(server, *plain, *login(tmp_path, "dba", "guess"))
        assert wrong.exit_code == 1 and "refuses the login dba" in wrong.stderr
        dba = login(tmp_path, "dba", "mends")
        applied = run(server, *plain, *dba, "--apply")
        left = {item["part"]: item["sql"] for item in told(applied)["items"] if not item["ok"]}
        superusers = {"guest-functions", "server-settings", "reserved-connections", "temp-files", "guest-definitions"}
        superusers.add("server-log")
        assert set(left) == {"other-databases", "large-objects", *superusers}, applied.stderr
        assert 'REVOKE ALL ON DATABASE "elsewhere" FROM PUBLIC;' in left["other-databases"]
        unsafe = [word for name in ("elsewhere", "postgres", "template1") for word in ("--leave-open", name)]
        refused = run(server, *plain, *unsafe, name="prepared")
        assert refused.exit_code == 9, "guests could fill the lock table"
        unsafe += ["--leave-open", "functions"]
        refused = run(server, *plain, *unsafe, name="prepared")
        assert refused.exit_code == 9, "guests could fill the disk with the server's log"
        unsafe += ["--leave-open", "server-log"]
        done = run(server, *plain, *unsafe, name="prepared")
        assert done.exit_code == 0, done.stderr
        assert "UNSAFE: guests may enter the database elsewhere" in done.stderr
        assert "UNSAFE: guests may fill the lock table and the WAL" in done.stderr
        assert "UNSAFE: guests may fill the disk that the server's log is on" in done.stderr
        assert "enter the database server-log" not in done.stderr


def test_superusers_and_own_records_are_refused(run: Run, stack: Stack, front: Customer, tmp_path: Path) -> None:
    owner = login(tmp_path, "guestkey_owner", stack.postgres.records.passwords["owner"])
    here, records = Customer(stack.ports.postgres, front.ca_file), Customer(stack.ports.records, front.ca_file)
    plain = ("--tls", "disable")
    own = run(records, *plain, *owner, "--dbname", "guestkey", "--check", host="127.0.0.1")
    assert own.exit_code == 1 and "the broker's own records" in own.stderr
    watch = login(tmp_path, "guestkey_watch", stack.postgres.data.passwords["watch"])
    twice = run(here, *plain, *watch, "--dbname", "data", host="127.0.0.1", name="twin")
    assert twice.exit_code == 1 and "connected already, as data" in twice.stderr
    with customer(wheel(), tls=False) as server:
        with server.admin() as session:
            session.execute(told(run(server, *plain))["sql"])
        taken = run(server, *plain, name="data")
        assert taken.exit_code == 1 and "stands for another database" in taken.stderr
        with server.admin() as session:
            session.execute("ALTER ROLE guestkey_minter PASSWORD 'another' BYPASSRLS")
            session.execute("GRANT pg_read_all_data TO guestkey_watch")
            session.execute(
                "CREATE OR REPLACE FUNCTION guestkey_ops.close_door(who name) RETURNS void LANGUAGE sql AS ''"
            )
        changed = run(server, *plain, "--check")
        found = {item["part"] for item in told(changed)["items"] if not item["ok"]}
        assert found == {"minter", "watch", "functions", "server-settings"}, changed.stderr
        with server.admin() as session:
            session.execute(told(changed)["sql"])
        lost = run(server, *plain, name="lost")
        assert lost.exit_code == 1 and "does not let in guestkey_minter" in lost.stderr
        assert "--reset-logins" in lost.stderr
        with server.admin() as session:
            session.execute(told(run(server, *plain, "--reset-logins", name="lost"))["sql"])
        found_again = run(server, *plain, name="lost")
        assert found_again.exit_code == 0, found_again.stderr
