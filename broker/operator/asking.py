"""Asking the operator at a terminal. What is asked goes to standard error: standard output is the result's alone."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import typer


def agreed(what: str) -> bool:
    """Yes or no; no unless said."""
    with redirect_stdout(sys.stderr):
        return typer.confirm(what)
