"""What `guestkey get --format` writes: what fits every kind, and what each kind brings. Where it goes is decided
elsewhere.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from broker.kinds.client import Credential, Files, Format
from guestkey.cli import variables
from guestkey.cli.clients import CLIENTS, client_of
from guestkey.cli.faults import Code, Fault
from guestkey.cli.own_files import MARK


def _nothing(_credential: Credential, _folder: Path) -> Files:
    return {}


def _env(credential: Credential, _folder: Path) -> Files:
    kind, values = credential.kind, credential.values
    unset = [f"unset {name}" for name in variables.foreign(kind, os.environ) if name != "GUESTKEY_TOKEN"]
    given = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.of(kind, values).items())]
    return {"env": "\n".join([*unset, *given]) + "\n"}


ENV = Format("env", 'for eval "$(…)" in a shell', _env, marked=True)
# It fits every kind, also of a newer server.
JSON = Format("json", "the same document as --json", _nothing)
FORMATS: Mapping[str, Format] = {
    one.name: one for one in (ENV, JSON, *(one for client in CLIENTS.values() for one in client.formats))
}


def fitting(kind: str) -> list[Format]:
    """The formats for a kind. A certificate's key would have to be shown in `env`."""
    client = client_of(kind)
    return [*([] if client.makes_key else [ENV]), JSON, *client.formats]


def named(name: str, kind: str) -> Format:
    """The format of a name, for a kind.

    Raises:
        Fault: there is none, or it is for other kinds; the error names those that fit.
    """
    found, fit = FORMATS.get(name.replace("_", "-").lower()), fitting(kind)
    next_step = f"For kind {kind} use one of: {', '.join(one.name for one in fit)}."
    if found is None:
        raise Fault(Code.USAGE, f"There is no format {name!r}.", next_step=next_step)
    if found not in fit:
        of = [other for other, client in CLIENTS.items() if found in client.formats]
        raise Fault(
            Code.USAGE,
            f"The format {found.name} does not fit a credential of kind {kind}.",
            why=f"It is for kind {' or '.join(of)}." if of else "Its private key would have to be printed.",
            next_step=next_step,
        )
    return found


def text_of(format_: Format, files: Files, *, marked: bool) -> str:
    """All of a format's text in one piece, for standard output or one file."""
    return (MARK if marked and format_.marked else "") + "".join(files.values())
