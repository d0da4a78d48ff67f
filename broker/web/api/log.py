"""`/log`: the log's signed checkpoints, and that it only grew."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.auditing import proofs
from broker.models import LogCheckpoint
from broker.web.api.verbs import At, verb
from broker.web.validation import Shown

router = APIRouter(prefix="/log", tags=["events"])
_LARGEST = 2**62


class CheckpointShown(Shown):
    """A signed checkpoint (C2SP tlog-checkpoint) and the public key that checks it."""

    size: int = Field(description="How many events the log held.")
    at: datetime = Field(description="When it was signed.")
    note: str = Field(description="The signed note, to be kept as it is.")
    key: str = Field(description="The log's public key, as C2SP signed-note writes it. Keep it apart from the notes.")


class Consistency(BaseModel):
    """The proof that the log of `first` entries is the beginning of that of `second` (RFC 6962 §2.1.2)."""

    first: int
    second: int
    hashes: list[str] = Field(description="In base64, in the order of the RFC.")


@verb(router, "GET", "/checkpoint", CheckpointShown)
def show_checkpoint(
    at: At,
    size: Annotated[
        int | None, Query(ge=1, le=_LARGEST, description="That of this many entries; else the newest.")
    ] = None,
) -> LogCheckpoint:
    """A checkpoint of the log: keep some outside, so that nobody can rewrite what came before them."""
    return proofs.checkpoint(at.tx, at.caller, size)


@verb(router, "GET", "/consistency", Consistency)
def show_consistency(
    at: At,
    first: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the older checkpoint.")],
    second: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the newer one.")],
) -> Consistency:
    """That nothing was taken out or altered between two checkpoints."""
    hashes = proofs.grown(at.tx, at.caller, first, second)
    return Consistency(first=first, second=second, hashes=[base64.b64encode(hash_).decode() for hash_ in hashes])
