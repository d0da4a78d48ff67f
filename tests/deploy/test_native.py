"""The deployed configuration of OpenBao and PostgreSQL, run by the real servers: paths and ports differ, and TLS of
PostgreSQL, which the embedded build lacks.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import requests

from broker.embedded import children, openbao
from broker.embedded.postgres import binary
from broker.keystore.operator import USERNAME_TEMPLATE

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@dataclass
class House:
    """Secrets as `deploy/make-secrets` makes them, and all servers running on the deployed configuration."""

    secrets: Path
    postgres_port: int
    records_port: int
    bao_url: str

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def connect(self, login: str, database: str) -> psycopg.Connection[Any]:
        password = self.secret(f"{login}_password")
        user = {"postgres": "postgres", "keycloak": "keycloak"}.get(login, f"guestkey_{login}")
        port = self.postgres_port if database == "data" else self.records_port
        return psycopg.connect(
            host="127.0.0.1", port=port, dbname=database, user=user, password=password, connect_timeout=5
        )

    def bao(self, method: str, path: str, body: Any = None, token: str = "") -> requests.Response:
        return requests.request(
            method,
            f"{self.bao_url}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": token} if token else {},
            verify=str(self.secrets / "ca.crt"),
            timeout=10,
        )

    def log_in(self, identity: str) -> str:
        secret_id = self.secret(f"guestkey_{identity}_secret_id")
        answer = self.bao("POST", "auth/approle/login", {"role_id": f"guestkey-{identity}", "secret_id": secret_id})
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["auth"]["client_token"]
        return token


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not under pytest's own folders: PostgreSQL runs as another user when we are root, and must reach its data."""
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture(scope="module")
def house(folder: Path) -> Iterator[House]:
    secrets = folder / "secrets"
    subprocess.run(
        [DEPLOY / "make-secrets", "guestkey.example.com"],
        env={"PATH": "/usr/bin:/bin", "SECRETS": str(secrets)},
        check=True,
        capture_output=True,
    )
    running: list[Any] = []
    try:
        postgres_port = _start_postgres(folder / "postgresql", secrets, running, "data")
        records_port = _start_postgres(folder / "records", secrets, running, "records")
        bao_url = _start_bao(folder / "openbao", secrets, running)
        yield House(secrets, postgres_port, records_port, bao_url)
    finally:
        for child in reversed(running):
            # SIGINT: PostgreSQL would wait for its clients on SIGTERM.
            children.stop(child, signal.SIGINT)


@pytest.fixture(scope="module")
def connected(house: House) -> House:
    for _ in range(2):  # twice is fine
        done = _connect_database(house)
        assert done.returncode == 0, done.stderr
    return house


def test_pg_hba_rules_are_loaded(house: House) -> None:
    with house.connect("owner", "guestkey") as connection:
        assert connection.execute("SHOW log_min_error_statement").fetchone() == ("panic",)
    with house.connect("watch", "data") as connection:
        assert connection.execute("SHOW reserved_connections").fetchone() == ("10",)
    with house.connect("registrar", "data"), house.connect("watch", "data"), house.connect("keycloak", "keycloak"):
        pass
    for login, database in (("app", "data"), ("owner", "postgres"), ("keycloak", "guestkey"), ("postgres", "data")):
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects|no pg_hba\.conf entry"):
            house.connect(login, database)


def test_pg_hba_accepts_guest_users_only_by_name(connected: House) -> None:
    port = connected.postgres_port
    for user, refusal in (("gk_abc123_l01jd", "password authentication failed"), ("gk_x", "pg_hba.conf rejects")):
        with pytest.raises(psycopg.OperationalError, match=refusal):
            psycopg.connect(host="127.0.0.1", port=port, dbname="data", user=user, password="x", connect_timeout=5)


def test_openbao_initialises_itself_on_first_start(house: House) -> None:
    health = house.bao("GET", "sys/health").json()
    assert (health["initialized"], health["sealed"], health["standby"]) == (True, False, False)
    for identity in ("issuer", "ender", "setup", "operator", "custodian"):
        token = house.log_in(identity)
        me = house.bao("GET", "auth/token/lookup-self", token=token).json()["data"]
        assert me["policies"] == [f"guestkey-{identity}"]


def test_issuer_identity_can_only_issue(house: House) -> None:
    token = house.log_in("issuer")
    encrypted = house.bao("POST", "transit/encrypt/totp", {"plaintext": "eA==", "context": "eA=="}, token)
    assert encrypted.status_code == 200
    for path, body in (
        ("sys/policies/acl/guestkey-lease-x", {"policy": 'path "*" { capabilities = ["sudo"] }'}),
        ("database/roles/gk-x", {}),
        ("transit/keys/tokens/config", {"exportable": True}),
        ("sys/leases/revoke", {"lease_id": "x"}),
    ):
        assert house.bao("POST", path, body, token).status_code == 403, path


def test_database_is_connected_and_only_openbao_knows_the_minters_password(connected: House) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connected.connect("minter", "data")
    setup, ender = connected.log_in("setup"), connected.log_in("ender")
    registrar = connected.bao("GET", "guestkey/data/connections/data/registrar", token=setup)
    watch = connected.bao("GET", "guestkey/data/connections/data/watch", token=ender)
    for answer, login in ((registrar, "registrar"), (watch, "watch")):
        with psycopg.connect(answer.json()["data"]["data"]["url"], connect_timeout=5) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (f"guestkey_{login}",)
    assert connected.bao("GET", "guestkey/data/connections/data/registrar", token=ender).status_code == 403


def test_database_user_gets_the_chosen_name(connected: House) -> None:
    setup, issuer = connected.log_in("setup"), connected.log_in("issuer")
    creation = ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"]
    revocation = ['DROP ROLE IF EXISTS "{{name}}"']
    role = {"db_name": "data", "creation_statements": creation, "revocation_statements": revocation}
    policy = {"policy": 'path "database/creds/gk-test" { capabilities = ["read"] }'}
    assert connected.bao("POST", "database/roles/gk-test", role, setup).status_code in (200, 204)
    assert connected.bao("PUT", "sys/policies/acl/guestkey-lease-gk-test", policy, setup).status_code in (200, 204)
    wanted = {
        "meta": {"lease": "l1"},
        "display_name": "abc123-l1",
        "policies": ["guestkey-lease-gk-test"],
        "ttl": "60s",
    }
    child = connected.bao("POST", "auth/token/create/guestkey-lease", wanted, issuer).json()["auth"]["client_token"]
    made = connected.bao("GET", "database/creds/gk-test", token=child)
    assert made.status_code == 200, made.text
    assert made.json()["data"]["username"] == "gk_abc123_l1"


def test_both_setups_name_database_users_alike() -> None:
    assert f"username_template={USERNAME_TEMPLATE}" in (DEPLOY / "openbao/connect-database").read_text()


def _start_postgres(state: Path, secrets: Path, running: list[Any], holds: str) -> int:
    port, account = children.free_port(), children.unprivileged()
    data, sockets = state / "data", state / "sockets"
    for folder in (state, data, sockets):
        folder.mkdir(mode=0o700)
        if account:
            os.chown(folder, *account)
    state.chmod(0o711)
    superuser = (secrets / ("postgres_password" if holds == "data" else "records_superuser_password")).read_text()
    password = state / "password"
    password.write_text(superuser)
    as_account = {"user": account[0], "group": account[1], "extra_groups": []} if account else {}
    if account:
        os.chown(password, *account)
    initdb = [str(binary("initdb")), "-U", "postgres", "-D", str(data), f"--pwfile={password}", "--encoding=UTF8"]
    subprocess.run([*initdb, "--locale=C"], check=True, capture_output=True, **as_account)  # type: ignore[call-overload]
    hba = (DEPLOY / f"postgresql/{holds}_hba.conf").read_text()
    hba = hba.replace("hostssl", "host   ").replace("172.30.20.0/24", "127.0.0.1/32").replace("peer", "scram-sha-256")
    (state / "pg_hba.conf").write_text(hba)
    config = (DEPLOY / "postgresql/postgresql.conf").read_text()
    if holds == "data":
        (state / "data.conf").write_text((DEPLOY / "postgresql/data.conf").read_text())
    config = re.sub(r"^ssl.*\n", "", config, flags=re.MULTILINE).replace("/guestkey/", f"{state}/")
    config += f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{sockets}'\n"
    (state / "postgresql.conf").write_text(config)
    command: list[str | Path] = [binary("postgres"), "-D", data, "-c", f"config_file={state}/postgresql.conf"]
    child = children.start(command, log=state / "log", account=account)
    running.append(child)
    script = {
        "PATH": f"{binary('psql').parent}:/usr/bin:/bin",
        "SECRETS": str(secrets),
        "HOLDS": holds,
        "SCRIPTS": str(_init_scripts(state)),
        "PGHOST": str(sockets),
        "PGPORT": str(port),
        "PGPASSWORD": superuser,
    }
    ready = [str(binary("psql")), "-U", "postgres", "-c", "SELECT 1", "postgres"]
    children.wait_until(
        lambda: subprocess.run(ready, env=script, capture_output=True, check=False).returncode == 0,
        child,
        seconds=20,
        name="PostgreSQL",
        log=state / "log",
    )
    done = subprocess.run([DEPLOY / "postgresql/init"], env=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return port


def _init_scripts(state: Path) -> Path:
    """The folder /guestkey as docker-compose.yml mounts it together."""
    scripts = state / "scripts"
    scripts.mkdir()
    for source in ("broker/embedded/records_database.sql", "broker/kinds/postgres/data_database.sql"):
        (scripts / Path(source).name).symlink_to(ROOT / source)
    (scripts / "keycloak_database.sql").symlink_to(DEPLOY / "postgresql/keycloak_database.sql")
    return scripts


def _start_bao(state: Path, secrets: Path, running: list[Any]) -> str:
    config = state / "config"
    for folder in (state, config, state / "file", state / "logs"):
        folder.mkdir()
    port, cluster = children.free_port(), children.free_port()
    for file in (DEPLOY / "openbao" / "openbao.hcl", openbao.INITIALIZE):
        text = file.read_text()
        text = text.replace("/run/secrets/", f"{secrets}/").replace("/openbao/policies", str(openbao.POLICIES))
        text = text.replace("/openbao/file", f"{state}/file").replace("/openbao/logs", f"{state}/logs")
        text = text.replace("0.0.0.0:8200", f"127.0.0.1:{port}").replace("0.0.0.0:8201", f"127.0.0.1:{cluster}")
        text = text.replace("openbao:8200", f"localhost:{port}").replace("openbao:8201", f"localhost:{cluster}")
        (config / file.name).write_text(text)
    child = children.start([openbao.binary(), "server", f"-config={config}"], log=state / "log")
    running.append(child)
    url = f"https://localhost:{port}"
    children.wait_until(lambda: _serves(url, secrets / "ca.crt"), child, seconds=40, name="OpenBao", log=state / "log")
    return url


def _serves(url: str, ca: Path) -> bool:
    try:
        return requests.get(f"{url}/v1/sys/health", verify=str(ca), timeout=2).status_code == 200
    except requests.RequestException:
        return False


def _connect_database(house: House) -> subprocess.CompletedProcess[str]:
    programs = f"{openbao.binary().parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
    variables = {
        "PATH": programs,
        "SECRETS": str(house.secrets),
        "BAO_ADDR": house.bao_url,
        "BAO_CACERT": str(house.secrets / "ca.crt"),
        "HOME": str(house.secrets.parent),
    }
    arguments = ["data", "127.0.0.1", str(house.postgres_port), "data", "disable"]
    return subprocess.run(
        [DEPLOY / "openbao/connect-database", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
