"""Programs that open a credential for a person, such as psql; and the files a program finds beside its environment."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.cli import children, option_file, own_files, ssh_files
from broker.cli.borrowing import Handed
from broker.cli.faults import Code, Fault
from broker.cli.words import safe

_OPTION_FILE = "GUESTKEY_OPTION_FILE"
_PEM = {"private_key": "key.pem", "certificate": "cert.pem", "chain": "chain.pem"}


@dataclass(frozen=True, slots=True)
class Opened:
    """What `connect` runs, and what it says before."""

    command: list[str]
    said: tuple[str, ...]


def program_for(dataset: str, kind: str | None, action: str) -> str:
    """The program that opens credentials of a kind.

    Raises:
        Fault: there is none for the kind, or it is not installed.
    """
    if kind in (None, "postgres"):
        return children.find_psql()
    if kind == "mariadb":
        return children.find("mariadb", "MariaDB's client")
    if kind == "ssh":
        return children.find("sftp", "OpenSSH's client")
    if kind == "s3" and action != "read":
        raise Fault(
            Code.USAGE,
            "connect lists, and who only writes sees nothing that could be listed.",
            next_step=f"guestkey run {safe(dataset)} --kind s3 --action {safe(action)} -- YOUR-TOOL",
        )
    if kind == "s3":
        return children.find("aws", "AWS's command line")
    raise Fault(
        Code.USAGE,
        f"No program here opens a credential of kind {kind}.",
        next_step=f"guestkey run {safe(dataset)} --kind {kind} -- YOUR-TOOL",
    )


def opening(program: str, handed: Handed, beside: Mapping[str, str]) -> Opened:
    """How the program opens this credential."""
    values = handed.values
    if handed.kind == "ssh":
        host, _, _ = ssh_files.address(values)
        return Opened(
            [program, "-F", beside["GUESTKEY_SSH_CONFIG"], ssh_files.HOST],
            (f"You are in {safe(values.get('directory'))} on {safe(host)}; leave with bye.",),
        )
    if handed.kind == "s3":
        place = f"s3://{values.get('bucket')}/{values.get('prefix')}"
        endpoint = str(values.get("endpoint_url") or "")
        # Said in the command, too: releases before 2.13 read no AWS_ENDPOINT_URL_S3, and would ask AWS itself.
        at = ["--endpoint-url", endpoint] if endpoint else []
        copying = safe(shlex.join(["aws", *at, "s3", "cp", f"{place}NAME", "."]))
        slice_ = f"--slice {safe(shlex.quote(str(handed.lease['slice'])))} " if handed.lease.get("slice") else ""
        more = f"Copy from it: guestkey run {safe(handed.dataset)} {slice_}--kind s3 -- {copying}"
        return Opened([program, *at, "s3", "ls", "--", place], (f"You can reach {safe(place)}. This lists it.", more))
    said = f"You can read {safe(values.get('relation'))}."
    if handed.kind == "mariadb":
        return Opened([program, f"--defaults-file={beside[_OPTION_FILE]}", option_file.schema(values)], (said,))
    return Opened([program], (said,))


@contextmanager
def beside(handed: Handed) -> Iterator[dict[str, str]]:
    """Variables that name files of a credential, which are gone after the block; none for kinds that need none."""
    if handed.kind not in _FILES:
        yield {}
        return
    with own_files.passing() as folder:
        yield _FILES[handed.kind](handed, folder)


def _ssh(handed: Handed, folder: Path) -> dict[str, str]:
    for name, text in ssh_files.files(handed.values, folder).items():
        own_files.put_private(folder / name, text)
    return {"GUESTKEY_SSH_CONFIG": str(folder / ssh_files.CONFIG)}


def _option_file(handed: Handed, folder: Path) -> dict[str, str]:
    own_files.put_private(folder / option_file.NAME, option_file.text(handed.values))
    return {_OPTION_FILE: str(folder / option_file.NAME)}


def _pem(handed: Handed, folder: Path) -> dict[str, str]:
    there = {name: file for name, file in _PEM.items() if handed.values.get(name)}
    for name, file in there.items():
        own_files.put_private(folder / file, str(handed.values[name]).strip() + "\n")
    return {f"GUESTKEY_{name.upper()}_FILE": str(folder / file) for name, file in there.items()}


_FILES: Mapping[str, Callable[[Handed, Path], dict[str, str]]] = {"mariadb": _option_file, "ssh": _ssh, "x509": _pem}
