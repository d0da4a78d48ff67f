"""How guests use an SSH certificate: what OpenSSH's programs need, and a config that says so; or an ssh-agent.

Nothing of the person's own is used: no agent, no other key, no config, no known host but the one the broker names.
"""

from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from broker.base.faults import Code, Fault
from broker.kinds.client import Credential, Files, Format, KeyPair, KindClient, Loader, Program, unusable

HOST = "guestkey"
KEY, CERTIFICATE, KNOWN_HOSTS, CONFIG = "id", "id-cert.pub", "known_hosts", "config"
_CONFIG_VARIABLE = "GUESTKEY_SSH_CONFIG"
_OPENSSH = "OpenSSH's client"
_AGENT_SECONDS = 10
_SETTINGS = (
    "IdentitiesOnly yes",
    "IdentityAgent none",
    "GlobalKnownHostsFile /dev/null",
    "StrictHostKeyChecking yes",
    "UpdateHostKeys no",
    "PreferredAuthentications publickey",
    "ForwardAgent no",
    "ClearAllForwardings yes",
    "PermitLocalCommand no",
    "ControlMaster no",
    "ControlPath none",
)
# A config has no way to quote these, and a name or an address of a host has none of them.
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.:_-]{0,252}[A-Za-z0-9])?", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}", re.ASCII)


def ssh_files(credential: Credential, folder: Path) -> Files:
    """Key, certificate, the host's key and the config, for a folder.

    Raises:
        Fault: what the server sent is not what it should be.
    """
    return {
        KEY: credential.value("private_key"),
        CERTIFICATE: credential.line("certificate") + "\n",
        KNOWN_HOSTS: credential.line("host_key") + "\n",
        CONFIG: _config(credential, folder.absolute()),
    }


def _address(credential: Credential) -> tuple[str, str, str]:
    """Host, port and user."""
    host, port, user = (str(credential.values.get(name, "")) for name in ("host", "port", "user"))
    if not (_HOST.fullmatch(host) and _USER.fullmatch(user) and re.fullmatch(r"[0-9]{1,5}", port, re.ASCII)):
        raise unusable("the address of the host")
    return host, port, user


def _config(credential: Credential, folder: Path) -> str:
    host, port, user = _address(credential)
    lines = [f"Host {HOST}", f"HostName {host}", f"Port {int(port)}", f"User {user}"]
    places = {"IdentityFile": KEY, "CertificateFile": CERTIFICATE, "UserKnownHostsFile": KNOWN_HOSTS}
    lines += [f"{setting} {_quoted(folder / name)}" for setting, name in places.items()]
    return "\n    ".join([*lines, *_SETTINGS]) + "\n"


def _quoted(path: Path) -> str:
    text = str(path)
    if '"' in text or any(unicodedata.category(character) == "Cc" for character in text):
        raise Fault(
            Code.USAGE,
            "The folder's name cannot be written into a config of OpenSSH.",
            next_step="Name one without quotation marks.",
        )
    return '"' + text.replace("%", "%%") + '"'


def _check_agent() -> None:
    Program("ssh-add", _OPENSSH).find()
    if not os.environ.get("SSH_AUTH_SOCK"):
        raise Fault(
            Code.USAGE,
            "No ssh-agent is running here.",
            why="SSH_AUTH_SOCK is not set.",
            next_step='Start one: eval "$(ssh-agent)"; or use --format ssh-files --out FOLDER',
        )


def _to_agent(credential: Credential, folder: Path, seconds: int) -> tuple[list[str], str]:
    """Give key and certificate to the agent, which forgets them when the lease ends."""
    host, port, user = _address(credential)
    command = ["ssh-add", "-q", "-t", str(max(seconds, 1)), str(folder / KEY)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_AGENT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _agent_refused(type(error).__name__) from error
    if done.returncode != 0:
        raise _agent_refused(done.stderr.strip().replace(str(folder), "…"))
    remarks = [
        f"In the agent for {seconds} s. The host's key, for your known_hosts:",
        f"  {credential.line('host_key')}",
    ]
    return remarks, f"sftp -P {int(port)} {user}@{host}"


def _agent_refused(why: str) -> Fault:
    return Fault(
        Code.FAULT, "The ssh-agent refused the key.", why=why, next_step="Check that it is running: ssh-add -l"
    )


class SshClient(KindClient):
    """See `Client`."""

    program = Program("sftp", _OPENSSH)
    makes_key = True
    formats = (
        Format(
            "ssh-agent",
            "into the running ssh-agent, until the lease ends",
            ssh_files,
            own_key=True,
            loader=Loader(_check_agent, _to_agent),
        ),
        Format(
            "ssh-files",
            "key, certificate and config for sftp -F, with --out FOLDER",
            ssh_files,
            folder=True,
            own_key=True,
            use="sftp -F {out}/config " + HOST,
        ),
    )
    file_variables: ClassVar[Mapping[str, str]] = {_CONFIG_VARIABLE: CONFIG}

    def key(self) -> KeyPair:
        """See `Client.key`."""
        # Slow to import, and for nothing but this.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        return KeyPair(public.decode(), private.decode())

    def opening(self, program: str, credential: Credential, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """See `Client.opening`."""
        host, _, _ = _address(credential)
        said = f"You are in {credential.values.get('directory')} on {host}; leave with bye."
        return [program, "-F", files[_CONFIG_VARIABLE], HOST], [said]


CLIENT = SshClient()
