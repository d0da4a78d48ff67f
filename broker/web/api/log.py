"""`/log`: the log's signed checkpoints, and that it only grew."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from broker.auditing import proofs
from broker.web.api.common import CallerNow, PartsNow
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


@router.get("/checkpoint", operation_id="show_checkpoint")
def show_checkpoint(
    caller: CallerNow,
    parts: PartsNow,
    size: Annotated[
        int | None, Query(ge=1, le=_LARGEST, description="That of this many entries; else the newest.")
    ] = None,
) -> CheckpointShown:
    """A checkpoint of the log: keep some outside, so that nobody can rewrite what came before them."""
    with parts.database.transaction() as tx:
        return CheckpointShown.model_validate(proofs.checkpoint(tx, caller, size))


@router.get("/consistency", operation_id="show_consistency")
def show_consistency(
    caller: CallerNow,
    parts: PartsNow,
    first: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the older checkpoint.")],
    second: Annotated[int, Query(ge=1, le=_LARGEST, description="Entries of the newer one.")],
) -> Consistency:
    """That nothing was taken out or altered between two checkpoints."""
    with parts.database.transaction() as tx:
        hashes = proofs.grown(tx, caller, first, second)
    return Consistency(first=first, second=second, hashes=[base64.b64encode(hash_).decode() for hash_ in hashes])
