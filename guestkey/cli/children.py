"""Running somebody else's program to its end. No secret is ever in an argument."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from guestkey.cli.faults import Code, Fault
from guestkey.cli.signals import handled

# On a terminal these reach the child by themselves.
_TYPED = frozenset({signal.SIGINT, getattr(signal, "SIGQUIT", signal.SIGINT)})


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
