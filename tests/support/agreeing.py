"""The second person of acts that take two, for tests that are about something else."""

from __future__ import annotations

from sqlalchemy import select

from broker.models import Dataset, Proposal
from broker.registry import proposals
from broker.web.api.proposals import PERFORMERS
from tests.support.world import World


def agree_waiting(world: World, slug: str) -> int:
    """Approve what waits about a dataset, as a second admin. Returns how much that was.

    Tests share one stack: whether another dataset shows the same table under stricter labels, which makes adding a
    slice an act for two, depends on what ran before.
    """
    second = world.person(roles=("admin",))
    with world.database.transaction() as tx:
        waits = select(Proposal.id).join(Dataset, Dataset.id == Proposal.subject)
        found = list(tx.scalars(waits.where(Dataset.slug == slug, Proposal.state == "pending")))
        for proposal_id in found:
            proposals.approve(tx, proposal_id, second.caller, world.now(), PERFORMERS)
    return len(found)
