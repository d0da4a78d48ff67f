"""A desk with an SFTP host behind it: a dataset there, somebody who may, and ways to be a guest, honest or not."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.kinds.ssh.kind import SshKind
from broker.kinds.ssh.public_keys import Certificate
from broker.kinds.values import LeaseToEnd
from broker.leases import sweeping
from broker.leases.issuing import Handed
from broker.models import Dataset, Lease, Slice
from broker.revocation import ending
from tests.support.sshd import CONNECTION, SftpGuest, SftpHost, key_pair
from tests.support.world import Signed, World


@dataclass
class Desk:
    """A dataset on the host with a slice to read and one to write into, and somebody who may."""

    world: World
    host: SftpHost
    folder: Path
    signed: Signed
    dataset: Dataset
    names: dict[str, str]

    def issue(self, slice_: str = "deidentified", action: str = "read", signed: Signed | None = None) -> Handed:
        """Issue through the story, for a key of the guest's own."""
        self.private, public = key_pair()
        return self.world.issue(
            signed or self.signed, self.dataset, slice=slice_, action=action, kind="ssh", public_key=public
        )

    def guest(self, handed: Handed) -> SftpGuest:
        """Whoever holds it, with the private key it was made for."""
        assert handed.values is not None
        return self.guest_with(handed.values["certificate"], handed, self.private)

    def guest_with(self, certificate: str, handed: Handed, private: bytes) -> SftpGuest:
        """The same with another certificate or key."""
        assert handed.values is not None
        folder = self.folder / secrets.token_hex(4)
        folder.mkdir()
        return SftpGuest(folder, private, {**handed.values, "certificate": certificate})

    def path(self, slice_: str = "deidentified") -> Path:
        """Where the slice lies at the host."""
        return self.host.prefix / "srv/guestkey" / self.names[slice_]

    def to_end(self, handed: Handed) -> LeaseToEnd:
        """What the worker would say of the lease."""
        with self.world.database.transaction() as tx:
            binding = tx.get_one(Slice, handed.lease.slice_id).binding
        return sweeping.to_end(self.world.ender, handed.lease, binding, self.world.now())

    def revoke(self, handed: Handed) -> None:
        """Mark the lease; nothing is told to the host."""
        with self.world.database.transaction() as tx:
            ending.mark(tx, Lease.id == handed.lease.id, cause="revoked", by="system", now=self.world.now())


def open_desk(world: World, host: SftpHost, folder: Path, *, of_its_own: bool = False) -> Desk:
    """A desk for somebody new, at slices to read and to write into that tests of a run share, or of its own."""
    if of_its_own or not host.shared:
        names = {name: f"acme/{secrets.token_hex(4)}" for name in ("deidentified", "labels")}
        for name in names.values():
            host.directory(name)
        bindings = {name: {"connection": CONNECTION, "directory": directory} for name, directory in names.items()}
        vendor = world.vendor()
        made = (vendor, world.dataset(vendor, kind="ssh", slices=bindings, actions=("read", "write")), names)
        if not of_its_own:
            host.shared = [made]
            world.share(made[1])
    else:
        (made,) = host.shared
    vendor, dataset, names = made
    signed = world.person(vendor)
    world.grant(dataset, signed)
    return Desk(world, host, folder, signed, dataset, names)


@contextmanager
def configured(host: SftpHost, old: str, new: str) -> Iterator[None]:
    """Another host.conf for a while."""
    config = host.prefix / "etc/guestkey/host.conf"
    before = config.read_text()
    assert old in before
    config.write_text(before.replace(old, new))
    try:
        yield
    finally:
        config.write_text(before)


def broker_of(host: SftpHost) -> str:
    """Whom the host asks."""
    lines = (host.prefix / "etc/guestkey/host.conf").read_text().splitlines()
    return next(line.removeprefix("BROKER=") for line in lines if line.startswith("BROKER="))


def gone(child: subprocess.Popen[bytes]) -> float:
    """Seconds until a transfer has broken off."""
    began = time.monotonic()
    assert child.wait(10)
    return time.monotonic() - began


def signed_again(desk: Desk, handed: Handed, network: str = "", **other: str) -> str:
    """A second certificate under the lease's key id, as somebody with its child token could have made."""
    assert handed.values is not None
    vault, lease = desk.world.parts.vault, handed.lease
    token = vault.child_token(lease.handle, lease.id, SshKind().policies(lease.slice_id, lease.action), ttl=60)
    role = f"gk-{lease.slice_id.removeprefix('sl_')}-{lease.action}"
    options = {"force-command": "internal-sftp -R", "source-address": network} if network else None
    public = Certificate.read(handed.values["certificate"]).public_key
    return vault.sign_ssh(
        other.get("role") or (f"{role}-net" if network else role),
        other.get("key", public),
        handed.values["user"],
        seconds=300,
        critical_options=dict([other["option"].split("=")]) if "option" in other else options,
        token=token,
    )


@contextmanager
def authority(host: SftpHost, key: Path | None) -> Iterator[None]:
    """Let the host trust another authority besides, for a while."""
    trusted = host.prefix / "etc/guestkey/ca.pub"
    before = trusted.read_text()
    if key:
        shown = subprocess.run(["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=True).stdout
        trusted.write_text(before + shown)
    try:
        yield
    finally:
        trusted.write_text(before)
