"""Connecting an SFTP host: write the keys it needs, print what to run there, ask whether it answers."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from broker.base.errors import BackendDown, Invalid
from broker.base.settings import said
from broker.kinds.connecting import Connected, ConnectingContext
from broker.kinds.ssh import host_connection
from broker.kinds.ssh.connection import SshConnection
from broker.kinds.ssh.host_connection import ENDER, SETUP, HostRefused
from broker.kinds.ssh.kind import KIND


def connect(
    desk: ConnectingContext,
    name: Annotated[str, typer.Option(help="The name that slices use for it: lower case.")],
    host: Annotated[str, typer.Option(help="The name under which guests and the worker connect to it.")],
    host_key_file: Annotated[
        Path, typer.Option(help="Its public host key, fetched from the host: /etc/ssh/ssh_host_ed25519_key.pub.")
    ],
    service: Annotated[str, typer.Option(help="Id of the organisation's service that the host signs in as.")],
    port: Annotated[int, typer.Option(help="Its port.")] = 22,
    folder: Annotated[Path | None, typer.Option(help="Folder for the host's keys.")] = None,
) -> Connected:
    """Connect an SFTP host: write the keys it needs, print what to run there, check that it responds, and record it.

    Nothing secret is written. Exit code 9 until the host answers; run it again then.
    """
    shown = _connection(name, host, port, host_key_file)
    kept = folder or Path.cwd() / f"guestkey-connect-{name}"
    _write_keys(desk, kept)
    commands, missing = _commands(desk, name, service, kept), _missing(desk, shown)
    if missing:
        desk.show("\n".join(commands))
        if not desk.as_json:
            for line in missing:
                desk.say(f"✕ {line}")
    return Connected(
        name,
        "host",
        shown,
        connected=not missing,
        missing=bool(missing),
        details=shown.model_dump(),
        document={"missing": missing, "commands": commands},
    )


def _connection(name: str, host: str, port: int, host_key_file: Path) -> SshConnection:
    KIND.check_binding({"connection": name, "directory": "any"})
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


def _write_keys(desk: ConnectingContext, folder: Path) -> None:
    """The authority's public key, and the one that checks lists of revoked leases."""
    with desk.keystore() as store:
        authority = store.known("ssh/config/ca", "public_key").strip()
        newest = store.known("transit/keys/ssh-lists", "latest_version")
        lists = store.known("transit/keys/ssh-lists", "keys", newest, "public_key")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(lists))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pub").write_text(authority + "\n")
    (folder / "krl.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _commands(desk: ConnectingContext, name: str, service: str, folder: Path) -> list[str]:
    broker = str(desk.settings.public_url).rstrip("/")
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


def _missing(desk: ConnectingContext, shown: SshConnection) -> list[str]:
    """Why each of the broker's hands gets no answer, if it gets none."""
    missing = []
    for identity, vault, role in (("ender", desk.ender(), ENDER), ("setup", desk.setup(), SETUP)):
        try:
            host_connection.ask(vault, role, said(shown), "check")
        except (BackendDown, HostRefused) as error:
            why = f"{error.detail} {error.advice}" if isinstance(error, BackendDown) else str(error)
            missing.append(f"As {identity}: {why}")
    return missing
