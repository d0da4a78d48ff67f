"""What every kind of credential must hold to. A new kind subclasses `KindContract` and says how to try a credential."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.credentials import kinds
from broker.credentials.base import Issued, Kind, LeaseToEnd, LeaseToIssue
from broker.errors import BackendDown, Invalid
from broker.parts import vault_of
from broker.vault_answers import checked_name
from tests.support.world import World


class KindContract(ABC):
    """The tests of one kind, on real backends."""

    name: str
    binding: Mapping[str, Any]
    # Whether its backend can be asked whether a credential still lives.
    listed: bool

    @abstractmethod
    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Whether what was handed over opens its slice now, tried as its holder would."""

    @pytest.fixture
    def kind(self) -> Kind:
        """The kind under test."""
        return kinds[self.name]

    @pytest.fixture
    def lease(self, world: World) -> LeaseToIssue:
        """A lease on a slice that is ready, for half an hour."""
        dataset, lease_id, now = world.dataset(), "l" + secrets.token_hex(13), world.now()
        return LeaseToIssue(
            id=lease_id,
            handle=f"{world.parts.tag}-{lease_id}",
            subject="person:pe_1",
            dataset=dataset.slug,
            slice="deidentified",
            slice_id=world.slice_id(dataset),
            binding=self.binding,
            action="read",
            issued_at=now,
            expires_at=now + timedelta(minutes=30),
            place={"host": "127.0.0.1"},
            issuer="https://guestkey.example",
        )

    def issue(self, world: World, kind: Kind, lease: LeaseToIssue) -> Issued:
        """Issue as the story does."""
        vault = world.parts.vault
        token = None
        if kind.needs_child_token:
            token = vault.child_token(lease.handle, lease.id, kind.policies(lease.slice_id), ttl=lease.lifetime + 60)
        issued = kind.issue(vault, token, lease)
        kind.activate(vault, lease, issued)
        return issued

    def test_it_is_known_by_its_name(self, kind: Kind) -> None:
        assert kind.name == self.name
        assert kind.actions <= {"read", "write"}

    def test_it_says_how_it_ends_and_how_fast(self, kind: Kind) -> None:
        said = kind.ending
        assert said.how.endswith(".")
        assert 0 < said.new_sessions <= 60
        assert 0 < said.open_sessions <= 60
        assert said.worst_case is None or said.worst_case >= max(said.new_sessions, said.open_sessions)

    def test_a_binding_has_one_canonical_form_and_nothing_unknown_in_it(self, kind: Kind) -> None:
        canonical = kind.check_binding(self.binding)
        assert kind.check_binding(canonical) == canonical
        with pytest.raises(Invalid):
            kind.check_binding({**self.binding, "surprise": "1=1"})

    def test_its_policies_have_safe_names_of_their_own(self, kind: Kind, lease: LeaseToIssue) -> None:
        policies = kind.policies(lease.slice_id)
        assert bool(policies) == kind.needs_child_token
        assert all(checked_name(name).startswith("guestkey-lease-") for name in policies)

    def test_a_credential_works_until_it_is_ended_and_ending_twice_is_fine(
        self, world: World, kind: Kind, lease: LeaseToIssue
    ) -> None:
        issued = self.issue(world, kind, lease)
        ending = LeaseToEnd(lease.id, lease.handle, lease.binding, issued.backend_lease_id)
        assert self.works(world, issued.values)
        assert kind.use.secrets and kind.use.secrets <= issued.values.keys()
        shown = [*kind.tool(issued.values), kind.use.command.format(dataset="trials", slice="full")]
        assert not any(issued.values[name] in "".join(shown) for name in kind.use.secrets)
        for value in issued.values.values():
            assert len(value) < 20 or value not in repr(issued)
        if self.listed:
            assert lease.handle in kind.shown(world.ender.vault, world.parts.tag, [lease.binding]).handles
        confirmed = [kind.end(world.ender.vault, ending) for _ in range(2)]
        assert confirmed[0] == confirmed[1]
        if self.listed:
            assert not self.works(world, issued.values)
        assert lease.handle not in kind.shown(world.ender.vault, world.parts.tag, [lease.binding]).handles

    def test_what_was_never_issued_ends_too(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        assert kind.end(world.ender.vault, LeaseToEnd(lease.id, lease.handle, lease.binding))

    def test_two_credentials_end_apart(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        other = replace(lease, id=lease.id + "b", handle=lease.handle + "b")
        one, two = self.issue(world, kind, lease), self.issue(world, kind, other)
        kind.end(world.ender.vault, LeaseToEnd(lease.id, lease.handle, lease.binding, one.backend_lease_id))
        assert self.works(world, two.values)
        kind.end(world.ender.vault, LeaseToEnd(other.id, other.handle, other.binding, two.backend_lease_id))

    def test_without_openbao_nothing_is_issued(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        vault = vault_of(world.settings, "issuer")
        token = None
        if kind.needs_child_token:
            token = vault.child_token(lease.handle, lease.id, kind.policies(lease.slice_id), ttl=60)
        world.stack.bao.stop()
        try:
            with pytest.raises(BackendDown) as down:
                kind.issue(vault, token, lease)
        finally:
            world.stack.bao.start()
        assert down.value.advice
