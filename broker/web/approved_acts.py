"""What each two-person act does once a second admin agreed: the one table of them. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from broker.identity.factors import reset_factor
from broker.identity.sources import bind_source, trust_source_mfa
from broker.registry.datasets import perform_change
from broker.registry.people import perform_give_role
from broker.registry.proposals import Performer
from broker.registry.services import perform_rotation
from broker.registry.slices import perform_add
from broker.registry.teams import perform_join
from broker.runtime.rulebook import apply_policy

PERFORMERS: Mapping[str, Performer] = MappingProxyType(
    {
        "bind_source": bind_source,
        "trust_source_mfa": trust_source_mfa,
        "give_role": perform_give_role,
        "reset_factor": reset_factor,
        "apply_policy": apply_policy,
        "change_dataset": perform_change,
        "add_slice": perform_add,
        "rotate_secret": perform_rotation,
        "add_member": perform_join,
    }
)
