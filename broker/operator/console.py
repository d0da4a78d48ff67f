"""What the server's commands have in common: their settings, what they ask at a terminal and what they say there."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import structlog
import typer
from pydantic import PostgresDsn, Secret, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.base.errors import GuestkeyError
from broker.base.settings import Settings
from broker.kinds.connecting import OptionMissing
from broker.kinds.settings import load_settings
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import Output

FILE_VARIABLE = "GUESTKEY_SETTINGS_FILE"
AsJson = Annotated[bool, typer.Option("--json", help="One versioned JSON document; never asks anything.")]


class OwnerSettings(BaseSettings):
    """All that `guestkey migrate` needs."""

    model_config = SettingsConfigDict(env_prefix="GUESTKEY_", extra="ignore")

    owner_database_url: Secret[PostgresDsn]


def load() -> Settings:
    """The settings, from `GUESTKEY_*` variables and the file that `GUESTKEY_SETTINGS_FILE` names."""
    return load_settings(os.environ.get(FILE_VARIABLE))


def load_owner() -> OwnerSettings:
    """The owner's log-in, from the same places."""
    return OwnerSettings(_env_file=os.environ.get(FILE_VARIABLE))


def confirm(what: str) -> bool:
    """Ask on standard error, as the result alone goes to standard output; no unless said."""
    with redirect_stdout(sys.stderr):
        return typer.confirm(what)


class CommandOutput:
    """What a command says that ends: lines for people, or with `--json` the one document every command prints."""

    def __init__(self, command: str, *, as_json: bool) -> None:
        self.as_json = as_json
        self._out = Output(command, as_json=as_json)

    def result(self, lines: Iterable[str], data: Mapping[str, Any]) -> None:
        """The result."""
        if self.as_json:
            self._out.document(data)
            return
        for line in lines:
            typer.echo(line)

    def failure(
        self, code: Code, what: str, next_step: str, lines: Iterable[str], problem: Mapping[str, Any]
    ) -> typer.Exit:
        """What could not be done, as the exit to raise."""
        if self.as_json:
            self._out.fault(Fault(code, what, next_step=next_step, problem=problem))
        else:
            for line in lines:
                typer.echo(f"guestkey: {line}", err=True)
        return typer.Exit(int(code))


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep warnings of single attempts out: what went wrong is told as a whole, and standard output is the result's."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@contextmanager
def reporting(command: str, *, as_json: bool = False) -> Iterator[CommandOutput]:
    """Turn what a command cannot do into lines on standard error and an exit code, without a traceback.

    Never shows the values of settings: they hold secrets.
    """
    out = CommandOutput(command, as_json=as_json)
    try:
        yield out
    except ValidationError as error:
        found = [
            {"pointer": "GUESTKEY_" + "__".join(str(part) for part in item["loc"]).upper(), "detail": item["msg"]}
            for item in error.errors(include_input=False, include_url=False)
        ]
        listed = "docs/configuration.md lists every setting."
        lines = [*(f"{item['pointer']}: {item['detail']}" for item in found), listed]
        raise out.failure(Code.USAGE, "A setting is missing or wrong.", listed, lines, {"errors": found}) from None
    except GuestkeyError as error:
        lines = [f"{error.detail} {error.advice}".rstrip()]
        code = Code.USAGE if isinstance(error, OptionMissing) else Code.FAULT
        raise out.failure(code, error.detail, error.advice, lines, {"code": error.code}) from None
    except OSError as error:
        said = f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        raise out.failure(Code.FAULT, said, "", [said], {}) from None
