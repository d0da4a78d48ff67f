"""Closing the whole installation, and opening it again: nothing is issued, everybody is out, every lease ends.

For `guestkey end-everything`, and for after a restore, whose backup revives what was revoked since. Closing is one row
that every decision locks; ending what is live follows in batches, here and by the worker.

A witness outside the records sees whether they have gone back in time: the worker tells OpenBao the number of the
newest event. Records that show fewer than the witness has seen were restored from a backup: the installation closes
itself. A restore of both to one moment goes unseen; `deploy/restore` therefore closes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import ColumnElement, func, select, update

from broker.base import words
from broker.base.database import Transaction, clock, notify
from broker.base.errors import BackendDown, Conflict, Invalid
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.identity.permissions import held_by_vendor, require_admin, require_reader
from broker.keystore.vault import VaultRefused
from broker.log import audit
from broker.models import LIVE_STATES, ApiToken, Event, Grant, Lease, PolicyInForce, Session, Suspension
from broker.revocation import ending
from broker.revocation.counts import INSTALLATION, Counts, Target, count
from broker.runtime.parts import Parts

BATCH = 500
SUBJECT = "installation"
# What a report on closing is called, and what is typed to agree to it.
NAME = "everything"
log = structlog.get_logger(__name__)
WITNESS_PATH = "witness"


@dataclass(frozen=True, slots=True)
class InstallationState:
    """How the installation stands. `held` counts the grants that wait to be confirmed, `live` the leases not ended."""

    closed_at: datetime | None
    why: str
    held_before: datetime | None
    held: int
    live: int


def installation_state(tx: Transaction) -> InstallationState:
    """How the installation stands now.

    Raises:
        Invalid: it was never set up.
    """
    row = _row(tx)
    held = 0
    if row.held_before is not None:
        held = tx.execute(select(func.count()).select_from(Grant).where(is_held(row.held_before))).scalar_one()
    live = tx.execute(select(func.count()).select_from(Lease).where(Lease.state.in_(LIVE_STATES))).scalar_one()
    return InstallationState(row.closed_at, row.closed_why, row.held_before, held, live)


def close(
    tx: Transaction,
    why: str,
    *,
    actor: str,
    now: datetime,
    hold_grants: bool = False,
    expected: Mapping[str, Any] | None = None,
) -> Suspension | None:
    """Close, from this commit on, for every replica's next decision.

    Returns the suspension whose report tells what became of each credential; None if it was closed already.

    Args:
        why: a sentence for admins, kept and shown.
        hold_grants: also hold every grant made so far until an admin confirms it.
        expected: the counts of the dry run that was agreed to, for the report's comparison.
    """
    row = _row(tx, lock=True)
    was_open = row.closed_at is None
    if not was_open and (row.held_before is not None or not hold_grants):
        return None
    whole = target(tx)
    counted = count(tx, whole) if was_open else None
    row.closed_at = row.closed_at or now
    row.closed_why = why
    if hold_grants:
        row.held_before = now
    details = {"grants_held": hold_grants}
    audit.record(
        tx, "installation.closed", actor=actor, subject=SUBJECT, now=now, details=details, personal={"reason": why}
    )
    notify(tx, ending.ENDING_CHANNEL)
    if counted is None:
        return None
    return begin_suspension(tx, whole, counted, why, counted.all_leases, actor=actor, now=now, expected=expected)


def target(tx: Transaction) -> Target:
    """The whole installation, as what is suspended."""
    return Target(INSTALLATION, SUBJECT, SUBJECT, NAME, "suspended" if _row(tx).closed_at else "active")


def begin_suspension(
    tx: Transaction,
    target: Target,
    found: Counts,
    reason: str,
    leases: int,
    *,
    actor: str,
    now: datetime,
    message: str = "",
    expected: Mapping[str, Any] | None = None,
) -> Suspension:
    """Record that something is suspended from now on: the report on what becomes of each credential is kept by it."""
    begun = Suspension(
        id=new_id("su"),
        what=target.what,
        target_id=target.id,
        name=target.name[:200],
        reason=reason,
        message=message,
        expected=dict(expected) if expected else None,
        found=asdict(found),
        suspended_by=actor.rpartition(":")[2],
        started_at=now,
    )
    tx.add(begun)
    tx.flush()
    details = {"what": target.what, "target": target.id, "leases": leases}
    audit.record(tx, "suspension.begun", actor=actor, subject=begun.id, now=now, details=details)
    return begun


def note_resumed(tx: Transaction, caller: Caller, what: str, target_id: str, now: datetime) -> None:
    """Close the open suspension of something that was let in again."""
    stands = (Suspension.what == what, Suspension.target_id == target_id, Suspension.resumed_at.is_(None))
    lifted = update(Suspension).where(*stands).values(resumed_at=now, resumed_by=caller.id)
    closed = tx.execute(lifted.returning(Suspension.id)).scalar_one_or_none()
    if closed is not None:
        audit.record(tx, "suspension.lifted", actor=caller.subject, subject=closed, now=now)


def end_sessions_batch(parts: Parts) -> int:
    """While closed, end earlier sign-ins and mark every live lease, in batches. Returns how many leases were marked."""
    marked = 0
    while True:
        with parts.database.transaction() as tx:
            closed_at = tx.execute(select(PolicyInForce.closed_at)).scalar_one_or_none()
            if closed_at is None:
                return marked
            now = clock(tx)
            signed_out = _sign_out(tx, closed_at, now)
            living = select(Lease.id).where(Lease.state.in_(("pending", "active"))).limit(BATCH)
            leases = ending.mark(tx, Lease.id.in_(living), cause="closed", by=audit.SYSTEM, now=now)
        marked += len(leases)
        if signed_out < BATCH and len(leases) < BATCH:
            return marked


def close_manually(
    tx: Transaction, caller: Caller, reason: str, now: datetime, *, expected: Mapping[str, Any] | None = None
) -> Suspension:
    """Close, by an admin, whose own session or token ends at once like everybody's.

    Raises:
        Forbidden: the caller is none.
        Conflict: it is closed already.
    """
    require_admin(caller)
    begun = close(tx, words.prose(reason, "/reason"), actor=caller.subject, now=now, expected=expected)
    if begun is None:
        raise Conflict("Guestkey is already closed.")
    # Now, not with everybody's a moment later: a page for which its session is about to end would fail when used.
    holder = Session if caller.how == "session" else ApiToken
    tx.execute(update(holder).where(holder.id == caller.holder_id).values(ended_at=now, end_cause="closed"))
    return begun


def reopen(tx: Transaction, caller: Caller, reason: str, now: datetime) -> InstallationState:
    """Open, by an admin. Brings back no session and no lease; held grants stay held.

    Raises:
        Forbidden: the caller is no admin.
        Conflict: it is open.
    """
    require_admin(caller)
    row = _row(tx, lock=True)
    if row.closed_at is None:
        raise Conflict("Guestkey is open.")
    row.closed_at, row.closed_why = None, ""
    reason = words.prose(reason, "/reason")
    audit.record(tx, "installation.opened", actor=caller.subject, subject=SUBJECT, now=now, personal={"reason": reason})
    note_resumed(tx, caller, INSTALLATION, SUBJECT, now)
    return installation_state(tx)


def held_grants(tx: Transaction, caller: Caller, *, after: str = "", limit: int = 100) -> Sequence[Grant]:
    """Grants that wait to be confirmed, by id.

    Raises:
        Forbidden: the caller is neither admin nor auditor.
    """
    require_reader(caller)
    held_before = _row(tx).held_before
    if held_before is None:
        return []
    query = select(Grant).where(is_held(held_before), Grant.id > after)
    return tx.scalars(query.order_by(Grant.id).limit(limit)).all()


def confirm_grants(
    tx: Transaction, caller: Caller, now: datetime, *, vendor: str | None = None, grants: Sequence[str] = ()
) -> int:
    """Let held grants count again: those named, or up to 500 of a vendor's. Returns how many; 0 when none is left.

    Grants of the caller's own stay held: nobody confirms themselves.

    Raises:
        Forbidden: the caller is no admin.
        Invalid: neither a vendor nor grants are named.
    """
    require_admin(caller)
    if vendor is None and not grants:
        raise Invalid("Name a vendor or grants to confirm.", field="/vendor")
    held_before = _row(tx).held_before
    if held_before is None:
        return 0
    named = held_by_vendor(Grant, vendor) if vendor is not None else Grant.id.in_(grants)
    chosen = (
        select(Grant.id)
        .where(is_held(held_before), named, Grant.person_id.is_distinct_from(caller.id))
        .order_by(Grant.id)
        .limit(BATCH)
    )
    confirmed = update(Grant).where(Grant.id.in_(chosen)).values(confirmed_at=now, confirmed_by=caller.id)
    done = tx.scalars(confirmed.returning(Grant.id)).all()
    audit.record_many(tx, "grant.confirmed", actor=caller.subject, now=now, about=[(id_, {}) for id_ in done])
    return len(done)


def is_held(held_before: datetime) -> ColumnElement[bool]:
    """Whether a grant is one that would count, were it not held."""
    stands_since = func.coalesce(Grant.confirmed_at, Grant.created_at)
    return Grant.revoked_at.is_(None) & (Grant.ends_at > func.clock_timestamp()) & (stands_since < held_before)


def _sign_out(tx: Transaction, closed_at: datetime, now: datetime) -> int:
    """End a batch of the sessions and tokens begun before the installation closed."""
    ended = 0
    for record, begun in ((Session, Session.signed_in_at), (ApiToken, ApiToken.created_at)):
        some = select(record.id).where(record.ended_at.is_(None), begun < closed_at).limit(BATCH)
        done = update(record).where(record.id.in_(some)).values(ended_at=now, end_cause="closed")
        ended = max(ended, len(tx.execute(done.returning(record.id)).all()))
    return ended


def _row(tx: Transaction, *, lock: bool = False) -> PolicyInForce:
    query = select(PolicyInForce)
    row = tx.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise Invalid("This installation has not been set up.", advice="Run `guestkey bootstrap` on the server.")
    return row


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest event the witness was told of, and when, by PostgreSQL's clock."""

    event: int
    at: datetime


def update_witness(parts: Parts) -> int:
    """Compare the records with the witness, then tell it how far they are. For the worker.

    Returns 1 if the installation closed because of it.

    Raises:
        BackendDown: the witness cannot be asked.
        VaultRefused: this identity may not speak to it.
    """
    seen = _seen(parts)
    with parts.database.transaction() as tx:
        newest, now = _newest(tx), clock(tx)
        if seen is not None and _is_rolled_back(tx, seen, newest):
            return _close_restored(tx, seen, newest, now)
        closed = tx.execute(select(PolicyInForce.closed_at)).scalar_one_or_none() is not None
    # While closed the witness keeps what it saw, so that the gap can still be told.
    if not closed and (seen is None or newest != seen.event):
        parts.vault.keep(WITNESS_PATH, {"event": str(newest), "at": now.isoformat()})
    return 0


def check_witness_once(parts: Parts) -> None:
    """Ask the witness before the first credential of this process, which may have been started after a restore.

    The installation closes if its records went back in time.

    Raises:
        BackendDown: it cannot be asked, so nothing is issued.
    """
    if parts.witnessed:
        return
    try:
        seen = _seen(parts)
    except VaultRefused as error:
        log.error("witness.refused", error=str(error))
        raise BackendDown(
            "The key store does not allow the broker to check whether its records are up to date.",
            backend="openbao",
            advice="Tell the operator: `deploy/openbao/upgrade` brings its policies up to date.",
        ) from error
    if seen is not None:
        with parts.database.transaction() as tx:
            newest = _newest(tx)
            if _is_rolled_back(tx, seen, newest):
                _close_restored(tx, seen, newest, clock(tx))
    parts.witnessed = True


def _is_rolled_back(tx: Transaction, seen: _Seen, newest: int) -> bool:
    if newest >= seen.event:
        return False
    held_before = tx.execute(select(PolicyInForce.held_before)).scalar_one_or_none()
    # What the witness saw before the last closing for a restore has been dealt with.
    return held_before is None or held_before < seen.at


def _close_restored(tx: Transaction, seen: _Seen, newest: int, now: datetime) -> int:
    missing, until = seen.event - newest, seen.at.isoformat(timespec="seconds")
    why = f"The records were restored from a backup: {missing} events until {until} are missing from them."
    log.error("installation.records_went_back", missing=missing, until=until)
    return int(close(tx, why, actor=audit.SYSTEM, now=now, hold_grants=True) is not None)


def _newest(tx: Transaction) -> int:
    return tx.execute(select(func.coalesce(func.max(Event.number), 0))).scalar_one()


def _seen(parts: Parts) -> _Seen | None:
    found = parts.vault.found_secret(WITNESS_PATH)
    if found is None:
        return None
    return _Seen(int(found["event"]), datetime.fromisoformat(found["at"]))
