"""What bounds issuing beside the gate: how many leases one holder may have, and one lease for one idempotency key.

Counted are live ones on a grant, and ended ones that their backend must still remember. An issuance asked for twice
with one key finds the lease of the first, and never a second secret.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select

from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid
from broker.gate.facts import Ask, Gathered
from broker.identity.caller import Caller
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.models import Lease
from broker.models.lease import LIVE_STATES

# A bucket's policy refuses about 500 sessions of everybody's: a twelfth of that is the most that one holder can fill.
MOST_REMEMBERED = 40
_CODE = "too_many_leases"


def reached(
    tx: Transaction, grant_id: str, caller: Caller, kind: Kind, most_live: int, now: datetime
) -> Conflict | None:
    """Why this caller gets no further lease on the grant now, or None.

    The caller's row is locked already, so two issues at once are counted one after the other.
    """
    own = (Lease.person_id if caller.kind == "person" else Lease.service_id) == caller.id
    live = _counted(tx, own, Lease.grant_id == grant_id, Lease.state.in_(LIVE_STATES))
    if live >= most_live:
        return Conflict(
            f"You already have {live} live leases under this grant; at most {most_live} are allowed.",
            advice="End one with `guestkey lease revoke`, or wait until one expires.",
            code=_CODE,
        )
    if not kind.ending.remembered:
        return None
    lately = now - timedelta(seconds=kind.ending.remembered)
    lives_on = or_(Lease.expires_at > now, Lease.created_at > lately)
    ended = _counted(tx, own, Lease.kind == kind.name, Lease.state.not_in(LIVE_STATES), lives_on)
    if ended < MOST_REMEMBERED:
        return None
    return Conflict(
        f"{ended} credentials of yours were ended early and must still be refused by their backend, which has room for"
        " few.",
        advice="Use one credential for longer instead of getting a new one each time. Try again later.",
        code=_CODE,
    )


def _counted(tx: Transaction, *which: ColumnElement[bool]) -> int:
    return tx.execute(select(func.count()).select_from(Lease).where(*which)).scalar_one()


def repeated(tx: Transaction, key_hash: bytes, ask: Ask, gathered: Gathered) -> Lease | None:
    """The lease an earlier request with the same key made, if there was one.

    Raises:
        Conflict: the key was used for something else.
    """
    lease = tx.scalars(select(Lease).where(Lease.holder_hash == key_hash)).one_or_none()
    asked = (ask.action, gathered.dataset["id"] if gathered.dataset else None)
    if lease is not None and ((lease.action, lease.dataset_id) != asked or not _alike(lease, ask, gathered)):
        raise Conflict("This idempotency key was used for a different request.", advice="Use a new key.")
    return lease


def _alike(lease: Lease, ask: Ask, gathered: Gathered) -> bool:
    """Whether slice, kind and public key are those the lease was made for; a lifetime is a wish, cut by the rules."""
    if ask.slice is not None and gathered.slices.get(ask.slice, {}).get("id") != lease.slice_id:
        return False
    proof = kinds[lease.kind].proof
    try:
        key = proof is not None and kinds[lease.kind].check_proof(ask.public_key or "")
    except Invalid:
        return False
    return ask.kind in (None, lease.kind) and digest(key or "") == lease.key_hash


def digest(public_key: str) -> bytes | None:
    """SHA-256 of what a guest brought; None for nothing."""
    return hashlib.sha256(public_key.encode()).digest() if public_key else None


def key_hash_of(caller: Caller, key: str) -> bytes:
    """What of a caller's idempotency key is kept: one holder's key says nothing to another."""
    return hashlib.sha256(f"{caller.subject}\n{key}".encode()).digest()
