"""`guestkey connect-backend ssh`: what an SFTP host needs, and whether it answers, by the operator on the server."""

from __future__ import annotations

import base64
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from broker.base.database import Database
from broker.base.database import now as clock
from broker.base.errors import BackendDown, Invalid
from broker.base.settings import Settings
from broker.kinds.ssh import host_connection
from broker.kinds.ssh.connection import SshConnection
from broker.kinds.ssh.host_connection import ENDER, SETUP, HostRefused
from broker.kinds.ssh.kind import SshKind
from broker.log import audit
from broker.operator.configuring import AsJson, Told, load, plainly
from broker.operator.connecting.connecting import CONNECTED
from broker.operator.connecting.keystore import operator
from broker.runtime.parts import vault_of

PARTLY = 9


def ssh(
    name: Annotated[str, typer.Option(help="The name that slices use for it: lower case.")],
    host: Annotated[str, typer.Option(help="The name under which guests and the worker connect to it.")],
    host_key_file: Annotated[
        Path, typer.Option(help="Its public host key, fetched from the host: /etc/ssh/ssh_host_ed25519_key.pub.")
    ],
    service: Annotated[str, typer.Option(help="Id of the organisation's service that the host signs in as.")],
    operator_secret_id_file: Annotated[Path, typer.Option(help="Secret id of the identity guestkey-operator.")],
    port: Annotated[int, typer.Option(help="Its port.")] = 22,
    folder: Annotated[Path | None, typer.Option(help="Folder for the host's keys.")] = None,
    as_json: AsJson = False,
) -> None:
    """Connect an SFTP host: write the keys it needs, print what to run there, check that it responds, and record it.

    Nothing secret is written. Exit code 9 until the host answers; run it again then.
    """
    with plainly("connect-backend ssh", as_json=as_json) as out:
        # What went wrong is told below; standard output is the result's alone.
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(50),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        settings = load()
        shown = _connection(name, host, port, host_key_file)
        kept = folder or Path.cwd() / f"guestkey-connect-{name}"
        _write_keys(settings, operator_secret_id_file, kept)
        commands = _commands(settings, name, service, kept)
        missing = _missing(settings, shown)
        if not missing:
            _record(settings, name, shown)
        _tell(out, settings, name, shown, commands, missing)
        if missing:
            raise typer.Exit(PARTLY)


def _connection(name: str, host: str, port: int, host_key_file: Path) -> SshConnection:
    SshKind().check_binding({"connection": name, "directory": "any"})
    try:
        key = " ".join(host_key_file.read_text().split()[:2])
        return SshConnection(host=host, port=port, host_key=key)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("The host key's file cannot be read.", field="/host_key_file") from error
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise Invalid(
            f"This is no {field.replace('_', ' ')}.",
            field=f"/{field}",
            advice="The file holds one line, as in /etc/ssh/ssh_host_ed25519_key.pub on the host.",
        ) from error


def _write_keys(settings: Settings, secret_id_file: Path, folder: Path) -> None:
    """The authority's public key, and the one that checks lists of revoked leases."""
    with operator(str(settings.bao_addr), settings.bao_ca_file, secret_id_file) as store:
        authority, lists = store.ssh_authority(), store.ssh_lists_key()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(lists))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pub").write_text(authority + "\n")
    (folder / "krl.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _commands(settings: Settings, name: str, service: str, folder: Path) -> list[str]:
    broker = str(settings.public_url).rstrip("/")
    words = ["sshd/install", name, broker, service, "secret", "ca.pub"]
    return [
        f"# Copy deploy/sshd and what is in {folder} to the host; put the service's client secret there in the file",
        "# secret (mode 0600). Then, as root:",
        shlex.join(words),
        "sshd -t && systemctl reload ssh",
        # Started or, where an earlier release runs, started anew.
        "systemctl enable guestkey-sessions.service && systemctl restart guestkey-sessions.service",
        "# A host that cannot reach the broker at every log-in goes by a list of revoked leases instead:",
        f"# ONLY_KRL=1 {shlex.join([*words, 'krl.pem'])} && systemctl enable --now guestkey-krl.timer",
    ]


def _missing(settings: Settings, shown: SshConnection) -> list[str]:
    """Why each of the broker's hands gets no answer, if it gets none."""
    place = {key: str(value) for key, value in shown.model_dump().items()}
    missing = []
    for identity, role in (("ender", ENDER), ("setup", SETUP)):
        try:
            host_connection.ask(vault_of(settings, "ender" if identity == "ender" else "setup"), role, place, "check")
        except (BackendDown, HostRefused) as error:
            said = f"{error.detail} {error.advice}" if isinstance(error, BackendDown) else str(error)
            missing.append(f"As {identity}: {said}")
    return missing


def _record(settings: Settings, name: str, shown: SshConnection) -> None:
    database = Database(str(settings.database_url.get_secret_value()), pool_size=2, timeout=settings.database_timeout)
    details = {"kind": "ssh", "host": shown.host, "port": shown.port, "host_key": shown.host_key}
    try:
        with database.transaction() as tx:
            audit.record(tx, CONNECTED, actor="operator", subject=name, now=clock(tx), details=details)
    finally:
        database.close()


def _tell(
    out: Told, settings: Settings, name: str, shown: SshConnection, commands: list[str], missing: list[str]
) -> None:
    known = {**settings.connections("ssh"), name: shown}
    setting = {key: value.model_dump() for key, value in known.items()}
    data = {"connection": name, "connected": not missing, "missing": missing, "commands": commands}
    if out.as_json:
        out.told([], {**data, "ssh_connections": setting})
        return
    if missing:
        out.told(commands, data)
        for line in missing:
            typer.echo(f"✕ {line}", err=True)
        return
    typer.echo(f"The host {name} answers. Set this for web and worker:", err=True)
    out.told([f"GUESTKEY_SSH_CONNECTIONS={json.dumps(setting)}"], data)
