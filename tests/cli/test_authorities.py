"""A server whose certificate an authority of its own signed: the guest checks it without having been given a file."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import trustme
from psycopg.conninfo import make_conninfo

from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.kinds import authority
from broker.kinds.postgres.connection import PostgresConnection
from broker.runtime.parts import Parts
from guestkey import Client
from guestkey.cli import authorities, variables
from guestkey.cli.faults import Fault
from tests.cli.terminal import Terminal
from tests.support.data import BERLIN
from tests.support.servers import Customer, tls_front
from tests.support.world import World
from tests.web.conftest import Replica

pytestmark = pytest.mark.usefixtures("worker")
COUNT = 'psql -XAtc "SELECT count(*) FROM $GUESTKEY_RELATION"'


@pytest.fixture(scope="module")
def front(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Customer]:
    """The data's PostgreSQL over TLS, with a certificate for `localhost` of an authority nobody knows."""
    with tls_front(Customer(stack.ports.postgres, tmp_path_factory.mktemp("none"))) as running:
        yield running


@pytest.fixture(scope="module")
def encrypted(settings: Settings, parts: Parts, front: Customer) -> Iterator[Replica]:
    """A replica whose setting names the authority's file, on the broker's own disk."""
    place = PostgresConnection(host="localhost", port=front.port, dbname="data", sslrootcert=str(front.ca_file))
    replica = Replica(settings.model_copy(update={"postgres_connections": {"data": place}}), parts)
    replica.start()
    yield replica
    replica.stop()


@pytest.fixture
def guest(world: World, encrypted: Replica, tmp_path: Path) -> tuple[Terminal, str]:
    """A guest's computer, and the dataset it may read."""
    signed, dataset, _ = world.guest()
    return Terminal(tmp_path, encrypted.url, GUESTKEY_TOKEN=signed.token, GUESTKEY_TIMEOUT="20"), dataset.slug


def test_programs_verify_the_server_with_the_credentials_ca(guest: tuple[Terminal, str], front: Customer) -> None:
    terminal, dataset = guest
    ran = terminal.run("run", dataset, "--", "sh", "-c", f'echo "$PGSSLMODE $PGSSLROOTCERT"; {COUNT}')
    assert ran.code == 0, ran.err
    (mode, _, file), count = ran.out.splitlines()[0].partition(" "), ran.out.splitlines()[1]
    assert (mode, count) == ("verify-full", str(BERLIN))
    assert file.startswith(str(terminal.home)) and stat.S_IMODE(Path(file).stat().st_mode) == 0o600
    assert Path(file).read_text().strip() == front.ca_file.read_text().strip()
    opened = terminal.run("connect", dataset, stdin="\\conninfo\n")
    assert opened.code == 0 and "TLS" in opened.out + opened.err, opened.err
    evaluated = terminal.run("get", dataset, "--kind", "postgres", "--format", "env").out
    shell = subprocess.run(["sh", "-c", f"{evaluated}\n{COUNT}"], capture_output=True, text=True, check=False)
    assert shell.stdout.strip() == str(BERLIN), shell.stderr
    assert "CERTIFICATE" not in evaluated


def test_files_and_json_contain_the_ca(guest: tuple[Terminal, str], front: Customer) -> None:
    terminal, dataset = guest
    folder = terminal.home / "made"
    ran = terminal.run("get", dataset, "--kind", "postgres", "--format", "pg-service", "--out", str(folder))
    assert ran.code == 0, ran.err
    assert stat.S_IMODE((folder / "ca.pem").stat().st_mode) == 0o600
    told = f"service={dataset}"
    psql = subprocess.run(
        ["psql", told, "-XAtc", "SELECT 1"],
        env={"PATH": terminal.variables["PATH"], "PGSERVICEFILE": str(folder / "pg_service.conf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert psql.stdout.strip() == "1", psql.stderr
    values = json.loads(terminal.run("get", dataset, "--kind", "postgres", "--json").out)["data"]["credential"]
    assert values["ca_pem"].strip() == front.ca_file.read_text().strip()
    assert values["sslrootcert"].startswith(str(terminal.home)), "the broker's path would be of no use here"
    assert "CERTIFICATE" not in terminal.run("get", dataset, "--kind", "postgres").out


def test_sdk_verifies_the_server_and_refuses_an_impostor(
    world: World, encrypted: Replica, front: Customer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    signed, dataset, _ = world.guest()
    with Client(encrypted.url, token=signed.token) as client:
        values = client.lease(dataset.slug, kind="postgres").values
        names = {"host": "host", "port": "port", "dbname": "dbname", "username": "user", "password": "password"}
        given = {name: values[ours] for ours, name in names.items()}
        given |= {name: values[name] for name in ("sslmode", "sslrootcert")}
        with psycopg.connect(make_conninfo("", **given)) as session:
            assert session.info.pgconn.ssl_in_use
        with tls_front(Customer(front.port, front.ca_file)) as posing:
            given["port"] = str(posing.port)
            with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
                psycopg.connect(make_conninfo("", **given))


def test_only_the_connections_ca_is_sent_and_no_system_bundle(tmp_path: Path) -> None:
    made = trustme.CA()
    certificate = made.cert_pem.bytes().decode()
    file = tmp_path / "ca.pem"
    file.write_text("# remark\n" + made.private_key_pem.bytes().decode() + certificate)
    assert authority.of_file(str(file)).strip() == certificate.strip()
    file.write_text(certificate * 80)
    assert authority.of_file(str(file)) == "" and authority.is_public(str(file))
    for nothing in (None, "system", str(tmp_path / "nonesuch"), str(tmp_path)):
        assert authority.of_file(nothing) == "" and authority.carried({"a": str(nothing)}, "a") == {"a": str(nothing)}


@pytest.mark.parametrize(
    ("kind", "setting", "variable"),
    [
        ("postgres", "sslrootcert", "PGSSLROOTCERT"),
        ("s3", "ca_file", "AWS_CA_BUNDLE"),
        ("mariadb", "ssl_ca", "GUESTKEY_SSL_CA"),
        ("of-a-newer-server", "ca_file", "GUESTKEY_CA_FILE"),
    ],
)
def test_ca_file_is_set_for_the_tools_of_each_kind(
    kind: str, setting: str, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    carried = {"ca_pem": trustme.CA().cert_pem.bytes().decode()}
    authorities.settled(kind, carried)
    assert variables.of(kind, carried)[variable] == carried[setting]
    assert "GUESTKEY_CA_PEM" not in variables.of(kind, carried)
    # A home that cannot be written, as in many containers.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    authorities.settled(kind, carried)
    assert Path(carried[setting]).read_text() == carried["ca_pem"]
    Path(carried[setting]).unlink()
    with pytest.raises(Fault, match="is not valid"):
        authorities.settled(kind, {"ca_pem": "-----BEGIN PRIVATE KEY-----"})
