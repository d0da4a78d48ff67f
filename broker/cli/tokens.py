"""Where the command line's token is kept: the system's keyring, or a file of mode 0600 where there is none.

The token itself is never printed, never an argument of a command, and never in an error.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from platformdirs import user_data_path

from broker.cli.faults import Code, Fault

_SERVICE = "guestkey"


def tokens_file() -> Path:
    """The file used where no keyring answers."""
    return user_data_path("guestkey", appauthor=False) / "tokens.json"


def load(url: str) -> str | None:
    """The token for an installation: `GUESTKEY_TOKEN`, the keyring's, or the file's.

    Raises:
        Fault: the file can be read by others.
    """
    return os.environ.get("GUESTKEY_TOKEN") or _from_keyring(url) or _read_file().get(url)


def save(url: str, token: str) -> str:
    """Keep a token; returns where, for the person to know."""
    kept = {other: value for other, value in _read_file().items() if other != url}
    if _to_keyring(url, token):
        _write_file(kept)
        return "the system keyring"
    _write_file(kept | {url: token})
    return f"{tokens_file()} (mode 0600; no keyring answers here)"


def forget(url: str) -> None:
    """Remove the token everywhere it may lie."""
    import keyring
    from keyring.errors import KeyringError

    try:
        if keyring.get_password(_SERVICE, url) is not None:
            keyring.delete_password(_SERVICE, url)
    except KeyringError as error:
        # Without a backend there is nothing to remove; any other failure must be told.
        if _has_backend():
            raise Fault(
                Code.FAULT, "The keyring did not give the token up.", why=str(error), next_step="Remove it by hand."
            ) from error
    kept = _read_file()
    if kept.pop(url, None) is not None:
        _write_file(kept)


def _from_keyring(url: str) -> str | None:
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(_SERVICE, url)
    except KeyringError:
        return None


def _to_keyring(url: str, token: str) -> bool:
    import keyring
    from keyring.errors import KeyringError

    try:
        keyring.set_password(_SERVICE, url, token)
        # Some backends take everything and keep nothing.
        return keyring.get_password(_SERVICE, url) == token
    except KeyringError:
        return False


def _has_backend() -> bool:
    import keyring
    from keyring.backends.fail import Keyring

    return not isinstance(keyring.get_keyring(), Keyring)


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
    except ValueError as error:
        raise Fault(Code.FAULT, f"{file} is damaged.", next_step=f"rm {file}; then guestkey login") from error
    return {str(url): str(token) for url, token in kept.items()} if isinstance(kept, dict) else {}


def _write_file(kept: dict[str, str]) -> None:
    file = tokens_file()
    if not kept:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        json.dump(kept, opened)
    fresh.replace(file)
