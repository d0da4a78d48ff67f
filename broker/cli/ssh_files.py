"""What OpenSSH's programs need of a credential: key, certificate, the host's key, and a config that says so. Pure.

Nothing of the person's own is used: no agent, no other key, no config, no known host but the one the broker names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.cli.faults import Code, Fault

HOST = "guestkey"
KEY, CERTIFICATE, KNOWN_HOSTS, CONFIG = "id", "id-cert.pub", "known_hosts", "config"
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


def files(values: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The files to put into a folder, by name.

    Raises:
        Fault: what the server sent is not what it should be.
    """
    return {
        KEY: _text(values, "private_key"),
        CERTIFICATE: _line(values, "certificate"),
        KNOWN_HOSTS: _line(values, "host_key"),
        CONFIG: _config(values, folder),
    }


def address(values: Mapping[str, Any]) -> tuple[str, int, str]:
    """Host, port and user.

    Raises:
        Fault: one of them is none.
    """
    host, port, user = (str(values.get(name, "")) for name in ("host", "port", "user"))
    if not (_HOST.fullmatch(host) and _USER.fullmatch(user) and re.fullmatch(r"[0-9]{1,5}", port, re.ASCII)):
        raise _nonsense("the address of the host")
    return host, int(port), user


def _config(values: Mapping[str, Any], folder: Path) -> str:
    host, port, user = address(values)
    lines = [f"Host {HOST}", f"HostName {host}", f"Port {port}", f"User {user}"]
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


def _line(values: Mapping[str, Any], name: str) -> str:
    text = _text(values, name).strip()
    if "\n" in text or "\r" in text:
        raise _nonsense(name)
    return text + "\n"


def _text(values: Mapping[str, Any], name: str) -> str:
    text = values.get(name)
    if not isinstance(text, str) or not text:
        raise _nonsense(name)
    return text


def _nonsense(what: str) -> Fault:
    return Fault(
        Code.FAULT,
        "The server's answer makes no sense.",
        why=f"The credential has no usable {what}.",
        next_step="guestkey doctor",
    )
