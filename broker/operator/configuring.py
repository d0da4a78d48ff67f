"""Reading the settings for a command, and saying in one line each what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import PostgresDsn, Secret, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from broker.errors import GuestkeyError
from broker.settings import Settings

FILE_VARIABLE = "GUESTKEY_SETTINGS_FILE"
USAGE = 2
FAULT = 1


class OwnerSettings(BaseSettings):
    """All that `guestkey migrate` needs."""

    model_config = SettingsConfigDict(env_prefix="GUESTKEY_", extra="ignore")

    owner_database_url: Secret[PostgresDsn]


def load() -> Settings:
    """The settings, from `GUESTKEY_*` variables and the file that `GUESTKEY_SETTINGS_FILE` names."""
    return Settings(_env_file=os.environ.get(FILE_VARIABLE))


def load_owner() -> OwnerSettings:
    """The owner's log-in, from the same places."""
    return OwnerSettings(_env_file=os.environ.get(FILE_VARIABLE))


@contextmanager
def plainly() -> Iterator[None]:
    """Turn what a command cannot do into lines on standard error and an exit code, without a traceback.

    Never shows the values of settings: they hold secrets.
    """
    try:
        yield
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = "GUESTKEY_" + "__".join(str(part) for part in item["loc"]).upper()
            typer.echo(f"guestkey: {name}: {item['msg']}", err=True)
        typer.echo("guestkey: docs/configuration.md lists every setting.", err=True)
        raise typer.Exit(USAGE) from None
    except GuestkeyError as error:
        typer.echo(f"guestkey: {error.detail} {error.advice}".rstrip(), err=True)
        raise typer.Exit(FAULT) from None
    except OSError as error:
        typer.echo(f"guestkey: {error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": "), err=True)
        raise typer.Exit(FAULT) from None
