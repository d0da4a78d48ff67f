"""What every kind of credential must hold to. A new kind subclasses `KindContract` and says how to try a credential."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.base.errors import BackendDown, Invalid
from broker.keystore.responses import checked_name
from broker.keystore.vault import ChildToken
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import BoundSlice, Issued, LeaseToEnd, LeaseToIssue
from broker.runtime.parts import vault_of
from tests.support.world import World


class KindContract(ABC):
    """The tests of one kind, on real backends."""

    name: str
    binding: Mapping[str, Any]
    # Whether its backend can be asked whether a credential still lives.
    listed: bool
    # What a guest brings, for kinds with a proof.
    public_key = ""

    @abstractmethod
    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Whether what was handed over opens its slice now, tried as its holder would."""

    def place(self, world: World) -> Mapping[str, str]:
        """What the settings say of the connection."""
        return {"host": "127.0.0.1"}

    def slice_ready(self, world: World) -> tuple[str, str]:
        """The slug of a dataset and the id of a slice of this kind, made real at its backend."""
        dataset = world.dataset()
        return dataset.slug, world.slice_id(dataset)

    @pytest.fixture
    def kind(self) -> Kind:
        """The kind under test."""
        return kinds[self.name]

    @pytest.fixture
    def lease(self, world: World) -> LeaseToIssue:
        """A lease on a slice that is ready, for half an hour."""
        (slug, slice_id), lease_id, now = self.slice_ready(world), "l" + secrets.token_hex(13), world.now()
        return LeaseToIssue(
            id=lease_id,
            handle=f"{world.parts.tag}-{lease_id}",
            subject="person:pe_1",
            dataset=slug,
            slice="deidentified",
            slice_id=slice_id,
            binding=self.binding,
            action="read",
            issued_at=now,
            expires_at=now + timedelta(minutes=30),
            place=self.place(world),
            issuer="https://guestkey.example",
            public_key=kinds[self.name].check_proof(self.public_key) if self.public_key else "",
        )

    def to_end(self, lease: LeaseToIssue, issued: Issued | None = None) -> LeaseToEnd:
        """What the worker would say of the lease."""
        return LeaseToEnd(
            lease.id,
            lease.handle,
            lease.binding,
            issued.backend_lease_id if issued else None,
            place=lease.place,
            action=lease.action,
            expires_at=lease.expires_at,
        )

    def token(self, world: World, kind: Kind, lease: LeaseToIssue) -> ChildToken | None:
        """The lease's own token at OpenBao, for kinds that need one."""
        if not kind.needs_child_token:
            return None
        policies = kind.policies(lease.slice_id, lease.action)
        return world.parts.vault.child_token(lease.handle, lease.id, policies, ttl=lease.lifetime + 60)

    def issue(self, world: World, kind: Kind, lease: LeaseToIssue) -> Issued:
        """Issue as the story does."""
        vault = world.parts.vault
        issued = kind.issue(vault, self.token(world, kind, lease), lease)
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
        policies = kind.policies(lease.slice_id, lease.action)
        assert bool(policies) == kind.needs_child_token
        assert all(checked_name(name).startswith("guestkey-lease-") for name in policies)

    def test_a_credential_works_until_it_is_ended_and_ending_twice_is_fine(
        self, world: World, kind: Kind, lease: LeaseToIssue
    ) -> None:
        issued = self.issue(world, kind, lease)
        ending, bound = self.to_end(lease, issued), BoundSlice(lease.binding, lease.place)
        assert self.works(world, issued.values)
        # Where the guest brings the public half, the secret never leaves its hands: there may be none to conceal.
        assert kind.use.secrets or kind.proof
        assert kind.use.secrets <= issued.values.keys()
        shown = [*kind.tool(issued.values), kind.use.command.format(dataset="trials", slice="full")]
        assert not any(issued.values[name] in "".join(shown) for name in kind.use.secrets)
        for value in issued.values.values():
            # What the record of the lease keeps, too, is no secret.
            assert len(value) < 20 or value == issued.backend_lease_id or value not in repr(issued)
        if self.listed:
            assert lease.handle in kind.list_credentials(world.ender.vault, world.parts.tag, [bound]).handles
        confirmed = [kind.end(world.ender.vault, ending) for _ in range(2)]
        assert confirmed[0] == confirmed[1]
        if self.listed:
            assert not self.works(world, issued.values)
        shown_now = kind.list_credentials(world.ender.vault, world.parts.tag, [bound])
        assert lease.handle not in shown_now.handles
        assert (bound.connection in shown_now.asked) == bool(kind.connects and kind.connects.asked)
        # What needs no backend lies in no connection.
        assert (kind.connects is not None) == kind.at_backend

    def test_what_was_never_issued_ends_too(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        assert kind.end(world.ender.vault, self.to_end(lease))

    def test_two_credentials_end_apart(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        other = replace(lease, id=lease.id + "b", handle=lease.handle + "b")
        one, two = self.issue(world, kind, lease), self.issue(world, kind, other)
        kind.end(world.ender.vault, self.to_end(lease, one))
        assert self.works(world, two.values)
        kind.end(world.ender.vault, self.to_end(other, two))

    def test_many_end_as_one_does(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        other, never = (replace(lease, id=lease.id + end, handle=lease.handle + end) for end in "bc")
        to_end = [self.to_end(each, self.issue(world, kind, each)) for each in (lease, other)]
        vault = world.ender.vault
        came_of = kind.end_many(vault, [*to_end, self.to_end(never)])
        assert came_of == {each.id: kind.end(vault, each) for each in (*to_end, self.to_end(never))}
        for each in to_end:
            kind.settle(vault, each)
        kept = kind.keystore_leases(vault, frozenset({lease.slice_id}))
        assert not kept & {each.backend_lease_id for each in to_end}

    def test_without_openbao_nothing_is_issued(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        vault, token = vault_of(world.settings, "issuer"), self.token(world, kind, lease)
        world.stack.bao.stop()
        try:
            with pytest.raises(BackendDown) as down:
                kind.issue(vault, token, lease)
        finally:
            world.stack.bao.start()
        assert down.value.advice
