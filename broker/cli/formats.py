"""What `guestkey get --format` writes: the credential as tools already read it. Where it goes is decided elsewhere.

A format is for the kinds it names. `json` fits every kind, also of a newer server.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.cli import authorities, keypairs, option_file, ssh_files, variables
from broker.cli.borrowing import Handed
from broker.cli.faults import Code, Fault
from broker.cli.own_files import MARK
from broker.cli.words import moment

JSON, AGENT, CREDENTIAL_PROCESS = "json", "ssh-agent", "credential-process"
Files = Mapping[str, str]
_AUTHORITY = "ca.pem"


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    `files` makes the content by name; they go into a folder where `folder` is set, and one after the other onto
    standard output or into one file where not. None: it is more than text. `marked`: a file of it may begin with a
    remark, so that it is known as ours and may be replaced. `keyless`: not for kinds whose credential is a certificate.
    """

    name: str
    kinds: tuple[str, ...]
    about: str
    files: Callable[[Handed, Path], Files] | None = None
    folder: bool = False
    marked: bool = False
    keyless: bool = False

    def fits(self, kind: str) -> bool:
        """Whether it is for this kind."""
        return not (self.keyless and keypairs.needed(kind)) and (not self.kinds or kind in self.kinds)


def named(name: str, kind: str) -> Format:
    """The format of a name, for a kind.

    Raises:
        Fault: there is none, or it is for other kinds; the error names those that fit.
    """
    found = FORMATS.get(name.replace("_", "-").lower())
    fitting = ", ".join(one.name for one in FORMATS.values() if one.fits(kind))
    if found is None:
        raise Fault(Code.USAGE, f"There is no format {name!r}.", next_step=f"For kind {kind} use one of: {fitting}.")
    if not found.fits(kind):
        raise Fault(
            Code.USAGE,
            f"The format {found.name} does not fit a credential of kind {kind}.",
            why=f"It is for kind {' or '.join(found.kinds)}." if found.kinds else "Its key would have to be shown.",
            next_step=f"For kind {kind} use one of: {fitting}.",
        )
    return found


def _env(handed: Handed, _folder: Path) -> Files:
    unset = [f"unset {name}" for name in variables.foreign(handed.values, os.environ) if name != "GUESTKEY_TOKEN"]
    given = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.of(handed.values).items())]
    return {"env": "\n".join([*unset, *given]) + "\n"}


def _credential_process(handed: Handed, _folder: Path) -> Files:
    ends = moment(str(handed.values.get("expires_at") or handed.lease.get("expires_at")))
    if ends is None:
        raise _nonsense("expires_at")
    document = {
        "Version": 1,
        "AccessKeyId": _value(handed, "access_key_id"),
        "SecretAccessKey": _value(handed, "secret_access_key"),
        "SessionToken": _value(handed, "session_token"),
        "Expiration": ends.isoformat(timespec="seconds"),
    }
    return {"credential.json": json.dumps(document) + "\n"}


def _pgpass(handed: Handed, _folder: Path) -> Files:
    fields = [_line(handed, name) for name in ("host", "port", "dbname", "username", "password")]
    return {"pgpass": ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n"}


def _pg_service(handed: Handed, folder: Path) -> Files:
    names = {"host": "host", "port": "port", "dbname": "dbname", "user": "username"}
    lines = [f"{setting}={_line(handed, name)}" for setting, name in names.items()]
    carried = handed.values.get(authorities.CARRIED)
    tls = ("sslmode",) if carried else ("sslmode", "sslrootcert")
    lines += [f"{name}={_line(handed, name)}" for name in tls if handed.values.get(name)]
    lines += [f"sslrootcert={folder.absolute() / _AUTHORITY}"] if carried else []
    # Not in the section itself: people copy that about.
    lines.append(f"passfile={folder.absolute() / 'pgpass'}")
    beside = {_AUTHORITY: str(carried)} if carried else {}
    return {**_pgpass(handed, folder), **beside, "pg_service.conf": "\n".join([f"[{handed.dataset}]", *lines]) + "\n"}


def _my_cnf(handed: Handed, _folder: Path) -> Files:
    return {option_file.NAME: option_file.text(handed.values)}


def _ssh_files(handed: Handed, folder: Path) -> Files:
    return ssh_files.files(handed.values, folder.absolute())


def _pem(handed: Handed, _folder: Path) -> Files:
    texts = {"key.pem": "private_key", "cert.pem": "certificate", "chain.pem": "chain"}
    # Whoever brought a request of their own has the key already.
    there = {file: name for file, name in texts.items() if name != "private_key" or name in handed.values}
    return {file: str(_value(handed, name)).strip() + "\n" for file, name in there.items()}


def _value(handed: Handed, name: str) -> Any:
    value = handed.values.get(name)
    if not value:
        raise _nonsense(name)
    return value


def _line(handed: Handed, name: str) -> str:
    text = str(_value(handed, name))
    if any(character in text for character in "\r\n\0"):
        raise _nonsense(name)
    return text


def _nonsense(name: str) -> Fault:
    return Fault(
        Code.FAULT,
        "The server's answer makes no sense.",
        why=f"The credential has no usable {name}.",
        next_step="guestkey doctor",
    )


_ALL = (
    Format("env", (), "lines for a shell's eval", _env, marked=True, keyless=True),
    Format(JSON, (), "the same document as --json"),
    Format(CREDENTIAL_PROCESS, ("s3",), "for credential_process in AWS's config", _credential_process),
    Format("pgpass", ("postgres",), "a line of PGPASSFILE", _pgpass, marked=True),
    Format("pg-service", ("postgres",), "pg_service.conf and pgpass, with --out FOLDER", _pg_service, folder=True),
    Format("my-cnf", ("mariadb",), "an option file, for mariadb --defaults-file", _my_cnf, marked=True),
    Format(AGENT, ("ssh",), "into the running ssh-agent, until the lease ends"),
    Format("ssh-files", ("ssh",), "key, certificate and config of sftp, with --out FOLDER", _ssh_files, folder=True),
    Format("pem", ("x509",), "key, certificate and chain", _pem, marked=True),
)
FORMATS: Mapping[str, Format] = {one.name: one for one in _ALL}


def text_of(format_: Format, files: Files, *, marked: bool) -> str:
    """All of a format's text in one piece, for standard output or one file."""
    return (MARK if marked and format_.marked else "") + "".join(files.values())
