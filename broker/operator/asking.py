"""Asking the operator at a terminal. What is asked goes to standard error: standard output is the result's alone."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import typer

from broker.base.errors import Invalid


class OptionMissing(Invalid):
    """An option that is needed was left out, where nobody can be asked."""

    code = "usage"


def ask(what: str, default: str | None = None) -> str:
    """An answer in words."""
    with redirect_stdout(sys.stderr):
        return str(typer.prompt(what, default=default))


def ask_secret(what: str) -> str:
    """An answer that is not shown."""
    with redirect_stdout(sys.stderr):
        return str(typer.prompt(what, hide_input=True))


def agreed(what: str) -> bool:
    """Yes or no; no unless said."""
    with redirect_stdout(sys.stderr):
        return typer.confirm(what)
