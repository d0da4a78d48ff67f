"""Debian's MariaDB as a customer runs it, with TLS, and connected by what docs/connect-mariadb.md says to type."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import pymysql
import trustme
from pymysql.cursors import Cursor

from broker.embedded import children
from broker.embedded.openbao import OpenBao
from broker.models import Dataset
from tests.support.data import ROWS
from tests.support.world import Signed, World

NAME = "ward"
HOST = "127.0.0.1"
WARD: dict[str, Any] = {"connection": NAME, "schema": "clinic", "table": "patients"}
WARD_DEIDENTIFIED = WARD | {"columns": ["id", "site", "age"], "rows": [["site", "=", "berlin"]]}
WARD_EVERY_ROW = WARD | {"columns": ["id", "site", "age"]}
Session: TypeAlias = "pymysql.Connection[Cursor]"
_ROOT = Path(__file__).resolve().parents[2]
_ROOT_PASSWORD = "mariadb-of-the-customer"


@dataclass(frozen=True)
class Mariadb:
    """A server with a table `clinic.patients`, like PostgreSQL's of the other tests."""

    folder: Path
    port: int
    extra_port: int
    child: subprocess.Popen[bytes]
    # As which connection OpenBao and the broker know it.
    name: str

    @property
    def ca_file(self) -> Path:
        """The authority of its certificate."""
        return self.folder / "ca.pem"

    @property
    def place(self) -> dict[str, Any]:
        """What the settings say of it."""
        return {"host": HOST, "port": self.port, "ssl_ca": str(self.ca_file)}

    def login(self, user: str, password: str, **more: Any) -> Session:
        """A session over TLS, its certificate verified."""
        tls = {"ssl_ca": str(self.ca_file), "ssl_verify_cert": True, "ssl_verify_identity": True}
        given = {"port": self.port, "autocommit": True, "connect_timeout": 5, **tls, **more}
        return pymysql.connect(host=HOST, user=user, password=password, **given)

    def guest(self, values: Mapping[str, str], **more: Any) -> Session:
        """A session of a guest."""
        return self.login(values["username"], values["password"], **more)

    def admin(self) -> Session:
        """A session that may do everything, also while all connections are taken."""
        return self.login("root", _ROOT_PASSWORD, port=self.extra_port)

    def ask(self, statement: str, *arguments: object) -> tuple[tuple[Any, ...], ...]:
        """What an administrator is answered."""
        with self.admin() as session:
            return ask(session, statement, *arguments)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It neither answers nor refuses."""
        self.child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.child.send_signal(signal.SIGCONT)

    def traces(self, lease_id: str) -> int:
        """How many users and sessions carry a lease's id."""
        return len(
            self.ask(
                "SELECT User FROM mysql.global_priv WHERE User LIKE %s"
                " UNION ALL SELECT USER FROM information_schema.PROCESSLIST WHERE USER LIKE %s",
                f"gk%{lease_id}",
                f"gk%{lease_id}",
            )
        )


def ask(session: Session, statement: str, *arguments: object) -> tuple[tuple[Any, ...], ...]:
    """One statement and its rows."""
    with session.cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return tuple(cursor.fetchall())


@contextmanager
def mariadb(bao: OpenBao, name: str = NAME, disk: Path | None = None) -> Iterator[Mariadb]:
    """Start a server, fill it, and connect it to an OpenBao.

    Args:
        disk: where everything that it writes lies, its log excepted.
    """
    with TemporaryDirectory(prefix="guestkey-mariadb-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        port, account, log = children.free_port(), children.unprivileged(), folder / "log"
        extra_port = children.free_port()
        options = [
            *_prepared(folder, disk or folder, port, account),
            f"--extra-port={extra_port}",
            "--extra-max-connections=20",
        ]
        child = children.start(["/usr/sbin/mariadbd", *options], log=log, account=account)
        server = Mariadb(folder, port, extra_port, child, name)
        try:
            children.wait_until(lambda: _answers(server), child, seconds=20, name="MariaDB", log=log)
            _fill(server)
            _connect(server, bao)
            server.ask("GRANT SELECT ON clinic.* TO guestkey_registrar@'%'")
            yield server
        finally:
            children.stop(child)


def _prepared(folder: Path, disk: Path, port: int, account: tuple[int, int] | None) -> list[str]:
    """Make its files; returns the options to start it with."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "start.sql").write_text(
        f"CREATE OR REPLACE USER root@'%' IDENTIFIED BY '{_ROOT_PASSWORD}';"
        "\nGRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;\n"
    )
    # A server that starts takes away what it finds of temporary tables, another's at the same place, too.
    data, temporary = disk / "data", folder / "temporary"
    data.mkdir()
    temporary.mkdir()
    if account:
        for path in (data, temporary, folder / "key.pem"):
            os.chown(path, *account)
    user = ["--user=nobody"] if account else []
    # With everything a fresh server brings: the database `test`, open to all, and accounts without a name.
    command = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}", *user]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return [
        *("--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}", f"--port={port}", f"--bind-address={HOST}"),
        *(f"--socket={data}/socket", "--skip-name-resolve", "--innodb-buffer-pool-size=32M", f"--log-bin={data}/bin"),
        *(f"--ssl-ca={folder}/ca.pem", f"--ssl-cert={folder}/cert.pem", f"--ssl-key={folder}/key.pem"),
        *("--require-secure-transport=ON", f"--init-file={folder}/start.sql", "--server-id=1"),
    ]


def _fill(server: Mariadb) -> None:
    server.ask("CREATE DATABASE clinic")
    server.ask(
        "CREATE TABLE clinic.patients (id int PRIMARY KEY, site varchar(20), age int, name text, email text,"
        " seen date, KEY by_age (age)) CHARACTER SET utf8mb4"
    )
    server.ask(
        "INSERT INTO clinic.patients SELECT seq, IF(seq % 2 = 0, 'berlin', 'paris'), 20 + seq % 60,"
        f" CONCAT('Patient ', seq), CONCAT('p', seq, '@example.org'), '2026-01-01' FROM clinic.seq_1_to_{ROWS}"
    )


def _connect(server: Mariadb, bao: OpenBao) -> None:
    """Type what the page says to type."""
    page = (_ROOT / "docs/connect-mariadb.md").read_text()
    (typed,) = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    admin = server.folder / "admin.cnf"
    admin.write_text(
        f"[client]\nhost={HOST}\nport={server.port}\nuser=root\npassword={_ROOT_PASSWORD}\nssl-ca={server.ca_file}\n"
    )
    given = {
        "BAO_ADDR": bao.address,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(server.folder),
        "name": server.name,
        "host": HOST,
        "port": str(server.port),
        "extra_port": str(server.extra_port),
        "ca_file": str(server.ca_file),
        "admin": str(admin),
        "operator": str(bao.secret_id_file("guestkey-operator")),
        "sql_file": str(_ROOT / "deploy/mariadb/prepare.sql"),
    }
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 0, done.stdout + done.stderr


def _answers(server: Mariadb) -> bool:
    try:
        server.admin().close()
    except pymysql.OperationalError:
        return False
    return True


def ward_guest(world: World, binding: Mapping[str, Any] = WARD_DEIDENTIFIED) -> tuple[Signed, Dataset]:
    """A vendor's engineer with a grant on a dataset whose slice lies in the ward."""
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="mariadb", slices={"deidentified": binding})
    world.grant(dataset, signed)
    return signed, dataset
