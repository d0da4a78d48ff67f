"""The parts one process works with, put together from its settings. Web replicas and the worker differ in identity.

And the first rows of an installation: its tag, which every handle carries, and the shipped rules as revision 1.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from queue import SimpleQueue
from typing import Literal

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Database, Transaction
from broker.base.errors import Invalid
from broker.base.settings import BaoIdentity, Settings
from broker.keystore.vault import Vault
from broker.kinds.base import Kind
from broker.kinds.values import LeaseToEnd
from broker.log import audit
from broker.models import Installation, PolicyInForce
from broker.runtime import rulebook
from broker.runtime.rulebook import Rulebook

IdentityName = Literal["issuer", "ender", "setup"]
_TAG_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass
class Parts:
    """Settings, records, key store and rules of one process. Safe to share between threads."""

    settings: Settings
    database: Database
    vault: Vault
    rulebook: Rulebook = field(default_factory=Rulebook)
    # Work beside a request; finished before the process leaves.
    background: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "background"))
    # What the key store may forget, once this process has nothing more urgent to end.
    unsettled: SimpleQueue[tuple[Kind, LeaseToEnd]] = field(default_factory=SimpleQueue)
    # Whether this process has asked the witness (`broker.revocation.closing`) if the records are the latest.
    witnessed: bool = False
    _tag: str = ""

    @classmethod
    def build(cls, settings: Settings, *, identity: IdentityName) -> Parts:
        """Make the parts; nothing is connected yet.

        Raises:
            Invalid: the OpenBao identity is not configured.
        """
        url = str(settings.database_url.get_secret_value())
        database = Database(url, pool_size=settings.database_pool_size, timeout=settings.database_timeout)
        return cls(settings, database, vault_of(settings, identity))

    @property
    def tag(self) -> str:
        """The installation's tag, part of every handle; read once. Outside of transactions: see `tag_in`."""
        if not self._tag:
            with self.database.transaction() as tx:
                return self.tag_in(tx)
        return self._tag

    def tag_in(self, tx: Transaction) -> str:
        """The same within a transaction that is open: who holds one connection never waits for a second."""
        if not self._tag:
            self._tag = installation_tag(tx)
        return self._tag

    def close(self) -> None:
        """Finish what is under way and close the connections to PostgreSQL."""
        self.background.shutdown()
        self.database.close()


def vault_of(settings: Settings, identity: IdentityName) -> Vault:
    """OpenBao as one of the broker's identities.

    Raises:
        Invalid: it is not configured.
    """
    configured: BaoIdentity | None = getattr(settings, f"bao_{identity}")
    if configured is None:
        name = f"GUESTKEY_BAO_{identity.upper()}"
        raise Invalid(
            f"The {identity} identity of the key store is not configured.",
            advice=f"Set {name}__ROLE_ID and {name}__SECRET_ID_FILE.",
        )
    return Vault(
        str(settings.bao_addr),
        configured,
        timeout=settings.bao_timeout,
        concurrency=settings.bao_concurrency,
        ca_file=settings.bao_ca_file,
    )


def install(tx: Transaction, now: datetime) -> str:
    """Make sure the installation has a tag and a policy in force; twice is fine. Returns the tag."""
    tag = "".join(secrets.choice(_TAG_ALPHABET) for _ in range(6))
    first = insert(Installation).values(singleton=1, tag=tag).on_conflict_do_nothing()
    made = tx.scalar(first.returning(Installation.tag))
    if made is not None:
        audit.record(tx, "installation.made", actor=audit.SYSTEM, subject=f"installation:{made}", now=now)
    if tx.execute(select(PolicyInForce.revision)).first() is None:
        _, rules, networks = rulebook.shipped()
        rulebook.put_in_force(tx, rules=rules, networks=networks, proposed_by=None, approved_by=None, now=now)
    return installation_tag(tx)


def installation_tag(tx: Transaction) -> str:
    """The tag of this installation.

    Raises:
        Invalid: there is none yet.
    """
    tag = tx.execute(select(Installation.tag)).scalar_one_or_none()
    if tag is None:
        raise Invalid("This installation has not been set up.", advice="Run `guestkey bootstrap` on the server.")
    return tag
