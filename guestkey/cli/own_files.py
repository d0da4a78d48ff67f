"""Files that hold a credential: mode 0600 from their first byte, whole or not at all, never over somebody else's.

What `guestkey get` wrote itself it may replace: a file that begins with its mark, a folder that holds its mark.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from guestkey.cli.faults import Code, Fault, unwritable

MARK = "# Made by `guestkey get`; it is replaced by the next.\n"
_MARK_FILE = ".guestkey"


def check_file(target: Path) -> None:
    """Whether a file of ours may be put there.

    Raises:
        Fault: something else is there, or it cannot be looked at.
    """
    try:
        if target.is_symlink() or (target.exists() and not (target.is_file() and _begins_with_mark(target))):
            raise _foreign(target)
        if not target.absolute().parent.is_dir():
            raise _no_folder(target)
    except OSError as error:
        raise unwritable(target, error) from error


def check_folder(target: Path) -> None:
    """Whether a folder of ours may be put there, or is there already.

    Raises:
        Fault: something else is there, others may write to it, or it cannot be looked at.
    """
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise _foreign(target)
        if not target.exists():
            if not target.absolute().parent.is_dir():
                raise _no_folder(target)
            return
        if not _own(target.stat()) or (any(target.iterdir()) and not (target / _MARK_FILE).is_file()):
            raise _foreign(target)
        if os.name == "posix" and stat.S_IMODE(target.stat().st_mode) & 0o077:
            raise Fault(
                Code.USAGE, f"{target} can be read by others.", next_step=f"chmod 700 {target}, or name a new folder."
            )
    except OSError as error:
        raise unwritable(target, error) from error


def write_file(target: Path, text: str) -> None:
    """Write one file.

    Raises:
        Fault: as `check_file`, which is asked again; nothing of that name is left behind then.
    """
    check_file(target)
    try:
        _put(target, text, replacing=target.exists())
    except FileExistsError as error:
        raise _foreign(target) from error
    except OSError as error:
        raise unwritable(target, error) from error


def write_folder(target: Path, files: Mapping[str, str]) -> None:
    """Write several files into a folder of mode 0700 of their own; each is replaced whole.

    Raises:
        Fault: as `check_folder`, which is asked again.
    """
    check_folder(target)
    try:
        target.mkdir(mode=0o700, exist_ok=True)
        # Somebody who may write beside it could have been faster, and would choose what an own config says.
        found = target.lstat()
        if not (stat.S_ISDIR(found.st_mode) and _own(found)):
            raise _foreign(target)
        _put(target / _MARK_FILE, MARK, replacing=True)
        for name, text in files.items():
            _put(target / name, text, replacing=True)
    except OSError as error:
        raise unwritable(target, error) from error


@contextmanager
def passing() -> Iterator[Path]:
    """A folder of mode 0700 that is gone after the block: in memory where the session has such a place."""
    with tempfile.TemporaryDirectory(prefix="guestkey-", dir=session_folder()) as name:
        yield Path(name)


def session_folder() -> Path | None:
    """The session's own folder in memory, where there is one that nobody else writes to.

    After `su` the variable still names somebody else's, who could put other files in the place of ours.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    if not named:
        return None
    try:
        found = Path(named).stat()
    except OSError:
        return None
    closed = os.name != "posix" or not stat.S_IMODE(found.st_mode) & 0o022
    return Path(named) if stat.S_ISDIR(found.st_mode) and _own(found) and closed else None


def put_private(target: Path, text: str) -> None:
    """Write a file of mode 0600 into a folder that is ours, replacing the one of before in one step."""
    _put(target, text, replacing=True)


def _put(target: Path, text: str, *, replacing: bool) -> None:
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        if replacing:
            fresh.replace(target)
        else:
            # Unlike a rename, it fails where something came to be meanwhile.
            os.link(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def _own(found: os.stat_result) -> bool:
    return os.name != "posix" or found.st_uid == os.geteuid()


def _begins_with_mark(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(MARK)) == MARK.encode()


def _foreign(target: Path) -> Fault:
    return Fault(
        Code.USAGE,
        f"{target} already exists and was not written by this command.",
        next_step="Choose another name; your files are not overwritten.",
    )


def _no_folder(target: Path) -> Fault:
    return Fault(Code.USAGE, f"{target.parent} is not a folder.", next_step="Create it first, or name another.")
