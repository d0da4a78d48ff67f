"""The faults of this computer's own making: files, folders, ports, and our own programming."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from broker.base.faults import Code, Fault

__all__ = ["Code", "Fault", "of_any", "of_system", "unreadable", "unwritable"]


def of_system(error: OSError) -> Fault:
    """The fault of something this computer refused: a file, a folder, a port."""
    what = f"{error.filename} cannot be used." if error.filename else "This computer refused an operation."
    return Fault(Code.FAULT, what, why=error.strerror or str(error), next_step="guestkey doctor")


def unwritable(file: Path, error: OSError) -> Fault:
    """Nothing can be written there."""
    return Fault(
        Code.USAGE,
        f"{file} cannot be written.",
        why=error.strerror or type(error).__name__,
        next_step="Name a new file in a folder you may write to.",
    )


def unreadable(file: Path, error: OSError | UnicodeDecodeError) -> Fault:
    """Nothing can be read there."""
    why = "It is not UTF-8 text." if isinstance(error, UnicodeDecodeError) else (error.strerror or "")
    return Fault(
        Code.USAGE, f"{file} cannot be read.", why=why, next_step="Check its name, and whether you may read it."
    )


def of_any(error: Exception) -> Fault:
    """The fault of whatever went wrong. A fault of our own programming shows its class only: what it says may hold
    anything. `GUESTKEY_DEBUG` shows all of it.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, OSError):
        return of_system(error)
    if os.environ.get("GUESTKEY_DEBUG"):
        traceback.print_exception(error)
    return Fault(
        Code.FAULT,
        "Internal error in guestkey.",
        why=type(error).__name__,
        next_step="Set GUESTKEY_DEBUG=1, run it again, and report the output.",
    )
