"""What the story of a credential does for every kind alike: which one is served, what is brought, what cannot end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import pytest

from broker.base.errors import Invalid
from broker.keystore.vault import Vault
from broker.kinds.discovery import kinds
from broker.kinds.values import Exposed, LeaseToEnd
from broker.models import Lease
from tests.support.world import World


def test_kind_defaults_to_the_kind_of_the_slice(world: World) -> None:
    signed, dataset, _ = world.guest()
    assert world.issue(signed, dataset).lease.kind == "postgres"


def test_unneeded_public_key_is_refused_and_nothing_is_issued(world: World) -> None:
    signed, dataset, _ = world.guest()
    with pytest.raises(Invalid) as refused:
        world.issue(signed, dataset, public_key="ssh-ed25519 AAAA")
    assert refused.value.field == "/public_key"
    assert world.events(dataset.id)[-1] == "decision.allowed"


class Stubborn:
    """A backend that cannot end what it issued before `until`; the test moves that moment."""

    def __init__(self, until: datetime) -> None:
        self.until = until


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch, world: World) -> Stubborn:
    """The backend of tokens, for an hour."""
    made, real = Stubborn(world.now() + timedelta(hours=1)), kinds["token"].end_many

    def end_many(vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        if world.now() < made.until:
            exposed = Exposed(made.until, "the store ends a session only by its own expiry")
            return dict.fromkeys((lease.id for lease in leases), exposed)
        return real(vault, leases)

    monkeypatch.setattr(kinds["token"], "end_many", end_many)
    return made


def test_credential_that_cannot_be_ended_early_is_shown_as_exposed_until_it_expires(
    world: World, stubborn: Stubborn
) -> None:
    signed, dataset, _ = world.guest()
    lease = world.issue(signed, dataset, kind="token").lease
    world.change(Lease, lease.id, expires_at=world.now())
    world.sweep()
    waiting = world.lease(lease.id)
    assert (waiting.state, waiting.exposed_until, waiting.attempts) == ("revoking", stubborn.until, 0)
    world.sweep()
    assert world.events(lease.id).count("lease.exposed") == 1
    assert "lease.revoke_failed" not in world.events(lease.id)
    stubborn.until = world.now()
    world.change(Lease, lease.id, next_attempt_at=stubborn.until)
    world.wait_sweeping(lease.id, "expired")
