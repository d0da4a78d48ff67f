"""Guests with certificates for a gateway, issued by the kind itself, and certificates of the same authority by hand."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.keystore.vault import ChildToken
from broker.kinds.discovery import kinds
from broker.kinds.values import Issued, LeaseToEnd, LeaseToIssue
from broker.kinds.x509.kind import role_definition
from broker.runtime.parts import vault_of
from tests.support.gateway import NAME, guest
from tests.support.world import World

KIND = kinds["x509"]
BINDING = {"connection": NAME}
GUEST = guest()


@dataclass
class Admitted:
    """A guest with a certificate."""

    lease: LeaseToIssue
    issued: Issued

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.issued.values["certificate"]

    def to_end(self) -> LeaseToEnd:
        """What the worker would say of the lease."""
        lease = self.lease
        return LeaseToEnd(lease.id, lease.handle, BINDING, self.issued.backend_lease_id)


def admitting(world: World) -> Callable[..., Admitted]:
    """Makes a slice behind the gateway; what is returned issues for it."""
    dataset = world.dataset(kind="x509", slices={"deidentified": BINDING}, actions=("read", "write"))
    slice_id = world.slice_id(dataset)

    def made(action: str = "read") -> Admitted:
        lease_id, now = "l" + secrets.token_hex(13), world.now()
        lease = LeaseToIssue(
            id=lease_id,
            handle=f"{world.parts.tag}-{lease_id}",
            subject="person:pe_1",
            dataset=dataset.slug,
            slice="deidentified",
            slice_id=slice_id,
            binding=BINDING,
            action=action,
            issued_at=now,
            expires_at=now + timedelta(minutes=10),
            public_key=GUEST.request,
        )
        token = world.parts.vault.child_token(lease.handle, lease.id, KIND.policies(slice_id, action), ttl=660)
        return Admitted(lease, KIND.issue(world.parts.vault, token, lease))

    return made


def signed(world: World, **changes: Any) -> str:
    """A certificate of the same authority by a role that was made by hand."""
    setup, vault = vault_of(world.settings, "setup"), world.parts.vault
    definition = role_definition(NAME, "sl_byhand", "read") | changes.pop("role", {})
    setup.write_role("pki", "gk-byhand", definition)
    setup.write_policy("guestkey-lease-gk-byhand", 'path "pki/sign/gk-byhand" { capabilities = ["update"] }')
    token = vault.child_token("abc123-l1", "l1", ["guestkey-lease-gk-byhand"], ttl=60)
    body = {"csr": GUEST.request, "common_name": "abc123-l1.lease.guestkey.internal", "ttl": "300s", **changes}
    return str(vault._write_as(token, "pki/sign/gk-byhand", body)["data"]["certificate"])


@dataclass
class Placed:
    """A lease on a slice behind the gateway, and its own token."""

    lease: LeaseToIssue
    token: ChildToken

    def to_end(self, serial: str | None = None) -> LeaseToEnd:
        """What the worker would say of it."""
        lease = self.lease
        return LeaseToEnd(lease.id, lease.handle, BINDING, serial, lease.place, "read", lease.expires_at)


def place(world: World) -> Placed:
    """A lease for ten minutes."""
    dataset = world.dataset(kind="x509", slices={"deidentified": BINDING}, actions=("read", "write"))
    lease_id, now = "l" + secrets.token_hex(13), world.now()
    lease = LeaseToIssue(
        id=lease_id,
        handle=f"{world.parts.tag}-{lease_id}",
        subject="person:pe_1",
        dataset=dataset.slug,
        slice="deidentified",
        slice_id=world.slice_id(dataset),
        binding=BINDING,
        action="read",
        issued_at=now,
        expires_at=now + timedelta(minutes=10),
        place=world.settings.place("x509", BINDING),
        public_key=KIND.check_proof(GUEST.request),
    )
    token = world.parts.vault.child_token(lease.handle, lease.id, KIND.policies(lease.slice_id, "read"), ttl=660)
    return Placed(lease, token)


def self_signed(key: Any, name: str = "Guestkey guests") -> str:
    """The certificate of an authority with that key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
