"""The answer to an act that waits for a second person: 202, with the proposal's id."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel

from broker.models import Proposal
from broker.runtime.parts import Parts

PROPOSED = 202


class Proposed(BaseModel):
    """An act that a second person must agree to: the dataset's owner or another admin."""

    id: str
    act: str
    state: str
    lapses_at: datetime


RESPONSES: dict[int | str, dict[str, Any]] = {
    PROPOSED: {"model": Proposed, "description": "It is waiting for the dataset's owner or a second admin."}
}


def proposed(item: Proposal) -> Proposed:
    """A proposal, as whoever made it is told of it."""
    return Proposed(id=item.id, act=item.act, state=item.state, lapses_at=item.lapses_at)


def answer_proposed(item: Proposal) -> JSONResponse:
    """The whole answer."""
    return JSONResponse(proposed(item).model_dump(mode="json"), PROPOSED)


def lifetime_of(parts: Parts) -> timedelta:
    """How long a proposal waits here."""
    return timedelta(seconds=parts.settings.proposal_lifetime)
