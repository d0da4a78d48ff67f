"""Credentials that `get --format credential-process` handed over and AWS's tools ask for again: kept while they live.

Those tools begin to ask a quarter of an hour before the end, at every single call: without this each call would take
a lease of its own. A file of mode 0600 in the session's own folder in memory, else in the person's cache; it is used
only while the broker says that its lease is alive.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from broker.kinds.client import Credential
from guestkey.cli import own_files, tokens
from guestkey.cli.api import segment
from guestkey.cli.command import Cli
from guestkey.cli.faults import Code, Fault
from guestkey.cli.wanted import Wanted

# Less is left than a slow transfer's next call may take to be signed and sent.
SPARE_SECONDS = 60
_LOCK_SECONDS = 30.0


@contextmanager
def slot(cli: Cli, wanted: Wanted) -> Iterator[Path]:
    """Where the credential for what is wanted is kept; one process at a time, so that several need one lease only."""
    who = hashlib.sha256(str(tokens.load(cli.url)).encode()).hexdigest()
    name = hashlib.sha256(json.dumps([cli.url, who, wanted.body()]).encode()).hexdigest()[:32]
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _sweep(folder)
        lock = (folder / f"{name}.lock").open("a")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        _take(lock.fileno())
        yield folder / f"{name}.json"


def kept(cli: Cli, file: Path, wanted: Wanted) -> Credential | None:
    """The credential of before, if it will do: long enough to live, and not ended."""
    document = _read(file)
    if document is None:
        return None
    lease, values = document["lease"], document["credential"]
    handed = Credential(wanted.dataset, str(wanted.kind), lease, values, document)
    if handed.seconds_left(datetime.now(UTC)) > SPARE_SECONDS and _alive(cli, handed.lease_id):
        return handed
    file.unlink(missing_ok=True)
    return None


def keep(file: Path, handed: Credential) -> None:
    """Keep it for the next call.

    Raises:
        Fault: it cannot be written.
    """
    try:
        own_files.put_private(file, json.dumps({"lease": handed.lease, "credential": dict(handed.values)}))
    except OSError as error:
        raise _unusable(file.parent, error) from error


def _alive(cli: Cli, lease_id: str) -> bool:
    try:
        return cli.api.get(f"/leases/{segment(lease_id)}").get("state") == "active"
    except Fault as fault:
        # A broker that is silent ends nothing; what it handed over goes on being good until it ends.
        if fault.code is Code.BACKEND:
            return True
        if fault.code is Code.NOT_FOUND:
            return False
        raise


def _folder() -> Path:
    running = own_files.session_folder()
    return running / "guestkey" if running else user_cache_path("guestkey", appauthor=False)


def _unusable(folder: Path, error: OSError) -> Fault:
    return Fault(
        Code.FAULT,
        f"{folder} cannot be used.",
        why=error.strerror or type(error).__name__,
        next_step="Credentials are stored there between two calls, so it must be your own folder.",
    )


def _read(file: Path) -> dict[str, Any] | None:
    try:
        with file.open(encoding="utf-8") as opened:
            if os.name == "posix" and stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise Fault(Code.FAULT, f"{file} can be read by others.", next_step=f"rm {file}")
            found = json.load(opened)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise _unusable(file.parent, error) from error
    fit = isinstance(found, dict) and all(isinstance(found.get(part), dict) for part in ("lease", "credential"))
    return found if fit and "id" in found["lease"] else None


def _sweep(folder: Path) -> None:
    """What is a day old can be of no more use to anybody."""
    long_ago = time.time() - 86_400
    for file in (*folder.glob("*.json"), *folder.glob("*.lock")):
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < long_ago:
                file.unlink()


def _take(descriptor: int) -> None:
    if os.name != "posix":
        return
    import fcntl

    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise Fault(
                    Code.WAITING, "Another process is getting the same credential.", next_step="Run it again."
                ) from None
            time.sleep(0.05)
