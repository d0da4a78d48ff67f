"""The numbered steps of a credential's story (docs/issuance.md), and of its end, as places to die at.

Functions of the product are wrapped in a process of the test's own; the product itself knows nothing of this. Whatever
a kind makes is copied to a file first, so that a test can try it as whoever might have got hold of it.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import NotEnded
from broker.leases import issuing, sweeping
from broker.log import audit

Die = Callable[[], None]
# Long enough that OpenBao has begun, too short for it to have answered.
_UNDER_WAY_SECONDS = 0.006


def die() -> None:
    """End this process as the kernel does when memory runs out: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def hang(seconds: float, fails: bool) -> None:
    """Do nothing for a while, as a machine that is moved does; then go on, or fail."""
    time.sleep(seconds)
    if fails:
        raise NotEnded("after a long while")


def issuing_steps(kind: Kind) -> dict[str, Callable[[Die], None]]:
    """Where a broker that issues a credential of a kind can die, in order."""
    committed = "_issue_at_backend" if kind.at_backend else "_hand_over_signed"
    steps: dict[str, Callable[[Die], None]] = {
        "1 facts gathered": lambda die: after(issuing, "gather", die),
        "2 decided": lambda die: after(issuing, "decide", die),
        "3 decision inserted": lambda die: after(issuing, "record_decision", die),
        "4 lease inserted": lambda die: after(issuing, "_begin_child_token", die),
        "4 committed": lambda die: before(issuing, committed, die),
    }
    if kind.needs_child_token:
        steps["5 child token made"] = lambda die: after(issuing, "_awaited", die)
    steps["6 being made"] = lambda die: before(kind, "issue", lambda: threading.Timer(_UNDER_WAY_SECONDS, die).start())
    steps["6 made"] = lambda die: after(kind, "issue", die)
    if kind.at_backend:
        steps["7 inserted"] = lambda die: after(issuing, "_record_issued", die)
        steps["7 committed"] = lambda die: after(issuing, "_activate", die)
        steps["8 lengthened, not answered"] = lambda die: _lengthened(kind, die)
    steps["8 not answered"] = lambda die: after(issuing, "issue", die)
    return steps


def _lengthened(kind: Kind, die: Die) -> None:
    after(kind, "activate", die)
    after(issuing, "issue", lambda: time.sleep(60))


def ending_steps(kind: Kind, lease_id: str) -> dict[str, Callable[[Die], None]]:
    """Where a worker that ends a lease can die, in order. Other leases it ends as always."""
    steps: dict[str, Callable[[Die], None]] = {"claimed": lambda die: _ending(kind, lease_id, before=die)}
    if kind.name == "postgres":
        steps |= {
            f"by hand: {name}": functools.partial(_by_hand, function)
            for name, function in (
                ("slice taken", "revoke_rights"),
                ("door closed", "close_door"),
                ("sessions ended", "end_sessions"),
                ("user dropped", "drop_user"),
            )
        }
    steps["ended at the backend"] = lambda die: _ending(kind, lease_id, after=die)
    steps["noted, not committed"] = lambda die: noted(lease_id, die)
    return steps


def _ending(kind: Kind, lease_id: str, *, before: Die = lambda: None, after: Die = lambda: None) -> None:
    """Wrap how a kind ends leases, alone or many together."""
    for name in ("end", "end_many"):
        if hasattr(kind, name):
            _around(kind, name, lambda asked: lease_id in _ids(asked), before, after)


def _ids(asked: Any) -> set[str]:
    return {lease.id for lease in asked} if isinstance(asked, Sequence) else {asked.id}


def _around(owner: Any, name: str, concerned: Callable[[Any], bool], before: Die, after: Die) -> None:
    original = getattr(owner, name)

    def wrapped(vault: Vault, asked: Any) -> Any:
        if not concerned(asked):
            return original(vault, asked)
        before()
        result = original(vault, asked)
        after()
        return result

    setattr(owner, name, wrapped)


def _by_hand(function: str, die: Die) -> None:
    """After a statement of the worker's own hands; OpenBao has given the lease up."""

    def given_up(*_: Any) -> None:
        raise VaultRefused("irrevocable")

    setattr(Vault, "revoke_lease", given_up)  # noqa: B010
    execute = psycopg.Connection.execute

    def executing(self: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        result = execute(self, query, *arguments, **named)
        if function in str(query):
            die()
        return result

    setattr(psycopg.Connection, "execute", executing)  # noqa: B010


def noted(lease_id: str, die: Die) -> None:
    """Once the end is written, before it is committed: alone, or as one of many."""
    kinds_of_events = ("lease.revoked", "lease.expired")
    for name in ("record", "record_many"):
        if not hasattr(audit, name):
            continue
        original = getattr(audit, name)

        def recording(tx: Any, kind: str, *, original: Any = original, **named: Any) -> Any:
            result = original(tx, kind, **named)
            subjects = [named["subject"]] if "subject" in named else [about[0] for about in named["about"]]
            if kind in kinds_of_events and lease_id in subjects:
                die()
            return result

        setattr(audit, name, recording)


def before(owner: Any, name: str, act: Callable[[], None]) -> None:
    """Let something happen whenever a function is called, before it begins."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        act()
        return original(*arguments, **named)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, act: Callable[[], None]) -> None:
    """Let something happen whenever a function has returned."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        act()
        return result

    setattr(owner, name, wrapped)


def install(order: Mapping[str, Any]) -> None:
    """Prepare this process to die as ordered: `step` of `kind`; `leak` is the file for what was made."""
    sweeping.CLAIM_SECONDS = int(order.get("claim_seconds", sweeping.CLAIM_SECONDS))
    if "step" not in order:
        return
    kind = kinds[order["kind"]]
    if "lease" in order:
        act = functools.partial(hang, order["hangs"], order.get("fails", False)) if "hangs" in order else die
        ending_steps(kind, order["lease"])[order["step"]](act)
        return
    _leak(kind, Path(order["leak"]))
    if order["step"] != "never":
        issuing_steps(kind)[order["step"]](die)


def _leak(kind: Kind, file: Path) -> None:
    issue = kind.issue

    def issuing_in_the_open(*arguments: Any) -> Any:
        issued = issue(*arguments)
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(dict(issued.values)))
        whole.rename(file)
        return issued

    setattr(kind, "issue", issuing_in_the_open)  # noqa: B010
