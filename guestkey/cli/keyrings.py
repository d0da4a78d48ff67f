"""The system's keyring, asked in bounded time: it is somebody else's program, and may hang, be locked, or not be there.

`GUESTKEY_TOKEN_STORE=file` goes without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic

from guestkey.cli.faults import Code, Fault

VARIABLE = "GUESTKEY_TOKEN_STORE"
SECONDS = 7.0
# So long nobody waits for it again in this process: a command may look for a token several times.
_PAUSE = 60.0
_quiet_until = 0.0
_SERVICE = "guestkey"
NONE = "no keyring is available here"
LOCKED = "the keyring is locked"
SILENT = f"the keyring did not answer within {SECONDS:.0f} s"
MEND = f"Unlock or repair it; or work without it: export {VARIABLE}=file, then guestkey login."


@dataclass(frozen=True, slots=True)
class Answer:
    """What the keyring said: a token, and otherwise why not. `unread`: it may hold one all the same."""

    token: str | None
    trouble: str = ""

    @property
    def unread(self) -> bool:
        """Whether it could not be looked into."""
        return self.trouble in (LOCKED, SILENT)


def passed_over() -> bool:
    """Whether tokens are kept in the file only.

    Raises:
        Fault: the variable says something else.
    """
    chosen = os.environ.get(VARIABLE) or "auto"
    if chosen not in ("auto", "file"):
        raise Fault(Code.USAGE, f"{VARIABLE} is neither `auto` nor `file`.", next_step=f"unset {VARIABLE}")
    return chosen == "file"


def was_silent() -> bool:
    """Whether it did not answer in this process, lately."""
    return monotonic() < _quiet_until


def get(url: str) -> Answer:
    """The token kept for an installation."""

    def asked() -> Answer:
        import keyring
        from keyring.errors import KeyringLocked, NoKeyringError

        try:
            return Answer(keyring.get_password(_SERVICE, url))
        except NoKeyringError:
            return Answer(None, NONE)
        except KeyringLocked:
            return Answer(None, LOCKED)

    return _bounded(asked)


def put(url: str, token: str) -> bool:
    """Keep a token; whether it is kept. Some keyrings take everything and keep nothing."""

    def asked() -> Answer:
        import keyring

        keyring.set_password(_SERVICE, url, token)
        return Answer(keyring.get_password(_SERVICE, url))

    return _bounded(asked).token == token


def remove(url: str) -> Answer:
    """Remove the token kept; `trouble` says why it may be there still."""

    def asked() -> Answer:
        import keyring

        if keyring.get_password(_SERVICE, url) is not None:
            keyring.delete_password(_SERVICE, url)
        return Answer(None)

    found = get(url)
    return found if found.trouble or found.token is None else _bounded(asked)


def unread(trouble: str) -> Fault:
    """What to tell where a token may be in a keyring that cannot be looked into."""
    if trouble == LOCKED:
        next_step = f"Unlock it, then run this again; or set GUESTKEY_TOKEN, or work without it: {VARIABLE}=file."
        return Fault(Code.FAULT, "The keyring is locked.", why=_WHY, next_step=next_step)
    return Fault(Code.FAULT, "The keyring does not answer.", why=_WHY, next_step=MEND)


_WHY = "The token that `guestkey login` kept is in it, if one is."


def _bounded(asked: Callable[[], Answer]) -> Answer:
    """What it answers, or SILENT. Asked in a thread of its own, which nobody waits for after that."""
    global _quiet_until
    if was_silent():
        return Answer(None, SILENT)
    answers: SimpleQueue[Answer] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(asked())
        except Exception as error:  # noqa: BLE001  a backend is somebody else's program, and is not needed
            # Not what it says: that may hold what it was given.
            answers.put(Answer(None, f"the keyring fails with {type(error).__name__}"))

    threading.Thread(target=ask, name="keyring", daemon=True).start()
    try:
        return answers.get(timeout=SECONDS)
    except Empty:
        _quiet_until = monotonic() + _PAUSE
        return Answer(None, SILENT)
