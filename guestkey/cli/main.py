"""The entry point `guestkey`: runs one command line to its end, whatever happens.

What takes time is imported inside, so that Ctrl-C meanwhile reads like Ctrl-C at any other time.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from guestkey.cli.faults import Code, of_any

COMPLETING = "_GUESTKEY_COMPLETE"


def run(arguments: Sequence[str]) -> int:
    """Run one command line to its end; returns the exit code.

    Raises:
        SystemExit: with the exit code, where a command of the server or the shell's completion was run.
    """
    _open_streams()
    try:
        return _run(list(arguments))
    except BrokenPipeError:
        # Whoever read our output has gone; nobody is left to be told.
        return int(Code.FAULT)
    except KeyboardInterrupt:
        return int(Code.INTERRUPTED)


def _run(arguments: list[str]) -> int:
    import typer

    from guestkey.cli import helping
    from guestkey.cli.command_tree import tree
    from guestkey.cli.output import Output

    if COMPLETING in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    # Where nothing was read of it yet, whether JSON is wanted is not known otherwise.
    out = Output("guestkey", as_json="--json" in own)
    try:
        code = tree()(arguments, prog_name="guestkey", standalone_mode=False)
    except typer.TyperException as error:
        if helping.is_only_help(error):
            typer.echo(error.format_message(), err=True)
        else:
            out.fault(helping.not_understood(error))
        return int(helping.code_of(error))
    except typer.Abort:
        return int(Code.INTERRUPTED)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  nobody shall read a traceback for an error message
        fault = of_any(error)
        out.fault(fault)
        return int(Code.CHILD_NOT_RUN if own[:1] in (["run"], ["connect"]) else fault.code)
    return code if isinstance(code, int) else 0


def _open_streams() -> None:
    """Whoever started us may have closed what every program has; nothing to read, and nobody who reads."""
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    sys.stdout = sys.stdout or io.TextIOWrapper(io.BytesIO())
    sys.stderr = sys.stderr or io.TextIOWrapper(io.BytesIO())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is written out as a number, and is no reason to stop.
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the command line."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        # Told already; else Python tries once more on leaving, and leaves with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or int(Code.FAULT)
    sys.exit(code)
