"""Every kind there is, held to the contract of kinds."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pymysql
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from broker.kinds.access_tokens import signing_keys
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import Issued, LeaseToIssue
from broker.models import Lease
from tests.credentials.contract import KindContract
from tests.support import gateway
from tests.support.data import BERLIN
from tests.support.mariadb import WARD_DEIDENTIFIED, Mariadb, ask
from tests.support.objects import readable
from tests.support.sshd import CONNECTION, SftpGuest, SftpHost, key_pair
from tests.support.world import DEIDENTIFIED, PICTURES, World


class TestPostgres(KindContract):
    """A PostgreSQL user."""

    name = "postgres"
    binding = DEIDENTIFIED
    listed = True

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Log in and read."""
        try:
            with psycopg.connect(
                host=values["host"],
                port=world.stack.ports.postgres,
                dbname="data",
                user=values["username"],
                password=values["password"],
            ) as session:
                return len(session.execute(f"SELECT * FROM {values['relation']}").fetchall()) == BERLIN
        except psycopg.OperationalError:
            return False


class TestMariadb(KindContract):
    """A MariaDB user."""

    name = "mariadb"
    binding = WARD_DEIDENTIFIED
    listed = True

    @pytest.fixture(autouse=True)
    def _server(self, ward: Mariadb) -> None:
        self._ward = ward

    def place(self, world: World) -> Mapping[str, str]:
        """The server of this run."""
        return world.settings.place("mariadb", self.binding)

    def slice_ready(self, world: World) -> tuple[str, str]:
        """A slice of its table."""
        dataset = world.dataset(kind="mariadb", slices={"deidentified": self.binding})
        return dataset.slug, world.slice_id(dataset)

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Log in and read."""
        try:
            with self._ward.guest(values) as session:
                return len(ask(session, f"SELECT * FROM {values['relation']}")) == BERLIN
        except pymysql.OperationalError:
            return False


class TestSsh(KindContract):
    """A certificate for SFTP, at a host that asks the broker: so its lease must be on record, too."""

    name = "ssh"
    listed = False

    @pytest.fixture(autouse=True)
    def _host(self, sftp: SftpHost, tmp_path: Path) -> None:
        self.binding = {"connection": CONNECTION, "directory": f"trials/{secrets.token_hex(4)}"}
        sftp.directory(self.binding["directory"])
        self._private, self.public_key = key_pair()
        self._folder = tmp_path

    def place(self, world: World) -> Mapping[str, str]:
        """The host of this run."""
        return world.settings.place("ssh", self.binding)

    def slice_ready(self, world: World) -> tuple[str, str]:
        """A directory of the host."""
        vendor = world.vendor()
        self._holder = world.person(vendor)
        self._dataset = world.dataset(vendor, kind="ssh", slices={"deidentified": self.binding})
        self._grant = world.grant(self._dataset, self._holder)
        return self._dataset.slug, world.slice_id(self._dataset)

    def issue(self, world: World, kind: Kind, lease: LeaseToIssue) -> Issued:
        """Issue with a record."""
        record = Lease(
            id=lease.id,
            kind="ssh",
            grant_id=self._grant.id,
            person_id=self._holder.id,
            dataset_id=self._dataset.id,
            slice_id=lease.slice_id,
            action=lease.action,
            state="active",
            handle=lease.handle,
            policy_revision=1,
            decision_id="ev_none",
            created_at=lease.issued_at,
            deadline=lease.expires_at,
            expires_at=lease.expires_at,
            key_hash=hashlib.sha256(lease.public_key.encode()).digest(),
        )
        world.add(record)
        return super().issue(world, kind, lease)

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Look into the directory."""
        with TemporaryDirectory(dir=self._folder) as folder:
            return SftpGuest(Path(folder), self._private, values).gets_in()

    def test_ended_credential_is_refused(self, world: World, kind: Kind, lease: LeaseToIssue) -> None:
        issued = self.issue(world, kind, lease)
        assert self.works(world, issued.values)
        kind.end(world.ender.vault, self.to_end(lease))
        # The record still says that it is active: the host has been told, too.
        assert not self.works(world, issued.values)


class TestS3(KindContract):
    """A session of the object store. No store lists its sessions; test_s3 tries them after their end."""

    name = "s3"
    binding = PICTURES
    listed = False

    def place(self, world: World) -> Mapping[str, str]:
        """The embedded store's."""
        return world.settings.place("s3", self.binding)

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """List and read as boto3 does."""
        return readable(values)


class TestToken(KindContract):
    """A signed token: whoever verifies the signature alone accepts it until it expires, as its ending says."""

    name = "token"
    binding: Mapping[str, str] = {}
    listed = False

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Verify it as a resource server does."""
        keys = KeySet.import_key_set({"keys": signing_keys.public_jwks(world.parts.vault)})
        token = jwt.decode(values["access_token"], keys, algorithms=["ES256"])
        return bool(token.header["typ"] == "at+jwt" and token.claims["aud"] == values["audience"])


class TestX509(KindContract):
    """A client certificate, shown to Debian's nginx."""

    name = "x509"
    binding: Mapping[str, str] = {"connection": gateway.NAME}
    listed = True
    guest = gateway.guest()
    public_key = guest.request

    @pytest.fixture(autouse=True)
    def _behind_a_gateway(self, gate: gateway.Gateway) -> None:
        self.gate = gate

    def place(self, world: World) -> Mapping[str, str]:
        """What the settings say of the gateway."""
        return world.settings.place(self.name, self.binding)

    def slice_ready(self, world: World) -> tuple[str, str]:
        """A slice behind the gateway."""
        dataset = world.dataset(kind="x509", slices={"deidentified": self.binding})
        return dataset.slug, world.slice_id(dataset)

    def works(self, world: World, values: Mapping[str, str]) -> bool:
        """Be let in, after the gateway has read its list."""
        assert self.gate.refresh().returncode == 0
        return self.gate.get(values["certificate"], self.guest.key_pem)[0] == 200


def test_every_kind_runs_the_contract_tests() -> None:
    held = {subclass.name for subclass in KindContract.__subclasses__()}
    assert held == set(kinds)
