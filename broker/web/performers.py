"""What each two-person act does once a second admin agreed: the one table of them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from broker.access.datasets import perform_change
from broker.access.rulebook import apply_policy
from broker.access.services import perform_rotation
from broker.access.slices import perform_add
from broker.access.teams import perform_join
from broker.identity.factors import reset_factor
from broker.identity.org_roles import give_role
from broker.identity.sources import bind_source, trust_source_mfa
from broker.proposals import Performer

PERFORMERS: Mapping[str, Performer] = MappingProxyType(
    {
        "bind_source": bind_source,
        "trust_source_mfa": trust_source_mfa,
        "give_role": give_role,
        "reset_factor": reset_factor,
        "apply_policy": apply_policy,
        "change_dataset": perform_change,
        "add_slice": perform_add,
        "rotate_secret": perform_rotation,
        "add_member": perform_join,
    }
)
