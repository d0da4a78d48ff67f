"""Where the command line's token is kept: the system's keyring, or a file of mode 0600 where there is none.

The token itself is never printed, never an argument of a command, and never in an error.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from guestkey.cli import keyrings, own_files
from guestkey.cli.faults import Code, Fault

NO_KEYRING = keyrings.NONE
PASSED_OVER = f"{keyrings.VARIABLE} says so"
# What a header can carry: more would be refused with the token in the refusal.
_TOKEN = re.compile(r"[!-~]+")


def tokens_file() -> Path:
    """The file used where no keyring answers."""
    return user_data_path("guestkey", appauthor=False) / "tokens.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """The token of an installation, and where it is: `variable`, `keyring`, `file`, or nowhere.

    `locked`: the keyring did not let itself be read, or did not answer, so it may hold one. `trouble`: why it was of no
    use.
    """

    token: str | None
    place: str
    locked: bool = False
    trouble: str = ""


def load(url: str) -> str | None:
    """The token for an installation: `GUESTKEY_TOKEN`, the keyring's, or the file's.

    Raises:
        Fault: what is kept cannot be read, is no token, or is behind a lock or a keyring that hangs.
    """
    found = find(url)
    if found.token is None and found.locked:
        raise keyrings.unread(found.trouble)
    return found.token


def find(url: str) -> Kept:
    """Where the token for an installation lies; a locked keyring is no fault here.

    Raises:
        Fault: the file cannot be read, or by others; or what is kept is no token.
    """
    if given := os.environ.get("GUESTKEY_TOKEN"):
        if _TOKEN.fullmatch(given) is None:
            raise Fault(
                Code.USAGE,
                "GUESTKEY_TOKEN does not hold a token.",
                why="A token consists of letters, digits and symbols without spaces.",
                next_step="Set it to the token alone, or unset it and use: guestkey login",
            )
        return Kept(given, "variable")
    return kept(url)


def kept(url: str) -> Kept:
    """The same without `GUESTKEY_TOKEN`: what `guestkey login` kept.

    Raises:
        Fault: as `find`.
    """
    ring = _from_keyring(url)
    token = ring.token or _read_file().get(url)
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise Fault(Code.SIGN_IN, "The stored token is not valid.", next_step="guestkey login")
    if ring.token or token is None:
        return ring
    return Kept(token, "file", ring.locked, ring.trouble)


def save(url: str, token: str) -> str:
    """Keep a token; returns where, for the person to know."""
    kept = {other: value for other, value in _read_file().items() if other != url}
    if not keyrings.passed_over() and keyrings.put(url, token):
        _write_file(kept)
        return "the system keyring"
    _write_file(kept | {url: token})
    return f"{tokens_file()} (mode 0600; {_from_keyring(url).trouble or 'the keyring stored nothing'})"


def forget(url: str) -> None:
    """Remove the token everywhere it may lie.

    Raises:
        Fault: the keyring kept it.
    """
    kept = _read_file()
    if (in_file := kept.pop(url, None)) is not None:
        _write_file(kept)
    if keyrings.passed_over():
        return
    trouble = keyrings.remove(url).trouble
    # Without a backend there is nothing to remove; any other failure must be told.
    if trouble not in ("", NO_KEYRING) and in_file is None:
        raise Fault(Code.FAULT, "The keyring did not delete the token.", why=trouble, next_step="Remove it yourself.")


def _from_keyring(url: str) -> Kept:
    if keyrings.passed_over():
        return Kept(None, "", trouble=PASSED_OVER)
    found = keyrings.get(url)
    return Kept(found.token, "keyring" if found.token else "", found.unread, found.trouble)


def _read_file() -> dict[str, str]:
    file = tokens_file()
    try:
        with file.open() as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise Fault(
                    Code.FAULT, f"{file} can be read by others.", next_step=f"chmod 600 {file}; then guestkey login"
                )
            kept = json.load(opened)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Fault(
            Code.FAULT,
            f"{file} cannot be read.",
            why=error.strerror or type(error).__name__,
            next_step="Fix that, then run guestkey login. Until then GUESTKEY_TOKEN works without it.",
        ) from error
    except ValueError as error:
        raise Fault(Code.FAULT, f"{file} is damaged.", next_step=f"rm {file}; then guestkey login") from error
    return {str(url): str(token) for url, token in kept.items()} if isinstance(kept, dict) else {}


def _write_file(kept: dict[str, str]) -> None:
    file = tokens_file()
    if not kept:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Under a name like no other first: what a crash left, in a container with the same process id, stops nobody.
    own_files.put_private(file, json.dumps(kept))
