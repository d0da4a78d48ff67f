"""What `guestkey connect-backend <kind>` asks of a kind: `connect` of its `connecting.py`, and the desk it works at.

`connect` takes a `Desk` first, and then the options of its own as Typer reads them. It tries the backend, keeps what
the key store must know, and answers with a `Connected`, which the operator's command records and prints.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from broker.base.errors import Invalid
from broker.base.settings import Settings
from broker.keystore.operator import OperatorStore
from broker.keystore.vault import Vault

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")


class OptionMissing(Invalid):
    """An option that is needed was left out, where nobody can be asked."""

    code = "usage"


@dataclass(frozen=True, slots=True)
class Connected:
    """How far a connection is.

    `what` it is to people; `connection` is what the setting shall say of it, if that is known; `details` go into the
    event. `changed`: something was new, so that it is recorded again. `missing`: something is to be done before it can
    be connected. `document` is what programs are told besides, `advice` what people are told after the setting.
    """

    name: str
    what: str
    connection: BaseModel | None = None
    connected: bool = True
    changed: bool = True
    missing: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    advice: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ConnectingContext:
    """The operator at the terminal, the settings, and the identities that connecting needs.

    `asks`: somebody sits there and may be asked. `as_json`: standard output is for the one document. `log_in` takes the
    file with the operator's secret id; `ender` and `setup` raise Invalid where these identities are not configured.
    """

    settings: Settings
    asks: bool
    as_json: bool
    secret_id_file: Path | None
    log_in: Callable[[Path], AbstractContextManager[OperatorStore]]
    ender: Callable[[], Vault]
    setup: Callable[[], Vault]

    def keystore(self) -> AbstractContextManager[OperatorStore]:
        """The key store as the operator, which no running part of the broker is: see `broker.keystore.operator`."""
        option = "--operator-secret-id-file"
        return self.log_in(self.secret_id_file or Path(self.ask("File with the operator's secret id", option)))

    def ask(self, what: str, option: str, default: str | None = None) -> str:
        """An answer in words, or the default where nobody can be asked.

        Raises:
            OptionMissing: there is neither.
        """
        if self.asks:
            # Standard output is the result's alone.
            with redirect_stdout(sys.stderr):
                return str(typer.prompt(what, default=default))
        if default is None:
            raise OptionMissing(f"{option} is missing.", advice=f"Give {option}, or run it in a terminal to be asked.")
        return default

    def ask_secret(self, what: str) -> str:
        """An answer that is not shown."""
        with redirect_stdout(sys.stderr):
            return str(typer.prompt(what, hide_input=True))

    def agreed(self, what: str) -> bool:
        """Yes or no; no unless said, or where nobody can be asked."""
        with redirect_stdout(sys.stderr):
            return self.asks and typer.confirm(what)

    def say(self, line: str) -> None:
        """One line on what was done, for people."""
        typer.echo(line, err=True)

    def show(self, text: str) -> None:
        """What people are to run or to keep; on standard output, unless that is for a document."""
        if not self.as_json:
            typer.echo(text)


def checked_name(name: str) -> str:
    """A connection's name, if it is one.

    Raises:
        Invalid: it is not.
    """
    if _NAME.fullmatch(name) is None:
        raise Invalid("A connection's name is lower case letters, digits and -, up to 32.", field="/name")
    return name
