"""An issuance asked for twice with one idempotency key finds the lease of the first, and never a second secret."""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid
from broker.gate.facts import Ask, Gathered
from broker.identity.caller import Caller
from broker.kinds.discovery import kinds
from broker.models import Lease


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
