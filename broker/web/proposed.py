"""The answer to an act that waits for a second person: 202, with the proposal's id."""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.runtime.parts import Parts
from broker.web.validation import Shown

PROPOSED = 202


class ProposalMade(Shown):
    """The act waits for a second admin."""

    id: str
    state: str
    lapses_at: datetime


class Proposed(ProposalMade):
    """An act that a second person must agree to: the dataset's owner or another admin."""

    act: str


def lifetime_of(parts: Parts) -> timedelta:
    """How long a proposal waits here."""
    return timedelta(seconds=parts.settings.proposal_lifetime)
