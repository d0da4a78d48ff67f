"""How the command line and the SDK use credentials of a kind: what a kind's `client.py` says, as its `CLIENT`.

It runs on guests' machines, where nothing of the server is installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from broker.base.faults import Code, Fault

# Texts by the name of their file.
Files = Mapping[str, str]


def unusable(what: str) -> Fault:
    """The server sent a credential that lacks something, or has it in a form that no tool may be given."""
    return Fault(
        Code.FAULT,
        "The server's answer is not valid.",
        why=f"The credential has no usable {what}.",
        next_step="guestkey doctor",
    )


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential that was handed over: its lease, and its values with the private key that was made here for it.

    Asking for a value that it lacks raises a `Fault`.
    """

    dataset: str
    kind: str
    lease: Mapping[str, Any]
    values: Mapping[str, Any] = field(repr=False)
    document: dict[str, Any] = field(repr=False)

    @property
    def lease_id(self) -> str:
        """The lease's id."""
        return str(self.lease["id"])

    def ends(self) -> datetime:
        """When its values say that it ends, or else its lease."""
        found = moment(str(self.values.get("expires_at") or self.lease.get("expires_at")))
        if found is None:
            raise unusable("expires_at")
        return found

    def seconds_left(self, now: datetime) -> int:
        """Whole seconds until the lease is over; 0 if that is not known."""
        ends = moment(self.lease.get("expires_at"))
        return max(int((ends - now).total_seconds()), 0) if ends else 0

    def value(self, name: str) -> str:
        """A value that must be there."""
        found = self.values.get(name)
        if found in (None, ""):
            raise unusable(name)
        return str(found)

    def line(self, name: str) -> str:
        """A value that must be there and fit on a line."""
        text = self.value(name).rstrip("\r\n")
        if any(character in text for character in "\r\n\0"):
            raise unusable(name)
        return text


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key in the form its tools read (PEM), and what the API takes as `public_key` for it."""

    public: str
    private: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that `connect` opens, and the package that brings it.

    `variable` may name another one; `bundled` finds the one that an extra of ours brings.
    """

    name: str
    package: str
    variable: str = ""
    bundled: Callable[[], str | None] = lambda: None

    def find(self) -> str:
        """Where it is.

        Raises:
            Fault: it is not installed.
        """
        named = os.environ.get(self.variable) if self.variable else None
        found = shutil.which(named or self.name) or (None if named else self.bundled())
        if found is not None:
            return found
        if named:
            raise Fault(
                Code.CHILD_NOT_RUN,
                f"{self.variable} does not name a program: {named}.",
                next_step=f"Correct it, or unset it to use the {self.name} that is installed.",
            )
        raise Fault(
            Code.CHILD_NOT_RUN,
            f"{self.name} is not installed here.",
            next_step=f"Install {self.package}, or use: guestkey run DATASET -- YOUR-TOOL",
        )


@dataclass(frozen=True, slots=True)
class Loader:
    """What gives a credential to a program that keeps it in memory instead of writing it.

    `check` raises a Fault before anything is asked for; `load` gets the format's files in a folder and the seconds
    left, and returns what to remark and the command to type.
    """

    check: Callable[[], None]
    load: Callable[[Credential, Path, int], tuple[list[str], str]]


@dataclass(frozen=True, slots=True)
class Format:
    """What `get --format` writes: a credential as tools already read it.

    `files` go into a folder where `folder` is set, or where `--out` names one and `may_folder` is set, and else one
    after the other onto standard output or into one file. `marked`: a file of it may begin with a remark, so that it is
    known as ours and may be replaced. `own_key`: it holds the private key, so it is made for one that is made here.
    `repeated`: a tool asks for it at every call, unattended, so that it is kept until it ends. `use` is the command
    that uses what was written, with {out}, {dataset} and {address}.
    """

    name: str
    about: str
    files: Callable[[Credential, Path], Files]
    folder: bool = False
    may_folder: bool = False
    marked: bool = False
    own_key: bool = False
    repeated: bool = False
    use: str = ""
    loader: Loader | None = None


class KindClient:
    """How credentials of a kind are used. A kind that says nothing is had as `env` or `json`, and used with `run`.

    `program` is what `connect` opens. `makes_key`: a credential is a certificate for a key of the guest's.
    `variables` are those its tools read, each with the name of its value; of those that begin with `foreign`, none but
    `kept` is inherited beside a credential: it could send it elsewhere, or weaken how the other side is checked.
    `file_variables` name files of `files`, each with the file's name. `authority` is the value where its tools look
    for the file with the authority that a credential carries. `of_tables`: its slices are columns and rows of a table.
    """

    formats: ClassVar[tuple[Format, ...]] = ()
    program: ClassVar[Program | None] = None
    makes_key: ClassVar[bool] = False
    variables: ClassVar[Mapping[str, str]] = {}
    foreign: ClassVar[str] = ""
    kept: ClassVar[frozenset[str]] = frozenset()
    file_variables: ClassVar[Mapping[str, str]] = {}
    authority: ClassVar[str] = "ca_file"
    of_tables: ClassVar[bool] = False

    def key(self) -> KeyPair:
        """A fresh key for one lease; only asked where `makes_key`."""
        raise TypeError(f"{type(self).__name__} makes no key")

    def fixed_variables(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Variables beside `variables` that keep its tools from going elsewhere."""
        return {}

    def files(self, credential: Credential, folder: Path) -> Files:
        """The files a program finds beside its environment, for a folder that is gone when it ends.

        Where variables name some, these are the files that `get` writes in the first of the formats.
        """
        return self.formats[0].files(credential, folder) if self.file_variables else {}

    def check_opening(self, dataset: str, action: str) -> None:
        """Whether its program can show anything.

        Raises:
            Fault: it cannot, and what to do instead.
        """

    def opening(self, program: str, credential: Credential, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The command that opens a credential, and what is said before. `files`: paths by `file_variables`."""
        return [program], [f"You can read {credential.values.get('relation')}."]

    def preview(self, program: str, credential: Credential, rows: int) -> list[str] | None:
        """The command that shows a few rows; None where there are none to be shown."""
        return None


def moment(text: str | None) -> datetime | None:
    """An ISO 8601 time of the API, or None if there is none or it cannot be read."""
    try:
        parsed = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed and parsed.tzinfo is None else parsed
