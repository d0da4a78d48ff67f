"""A guest with a credential of its own, the statements it fights with, and its end as the worker brings it about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from broker.kinds.names import short
from broker.kinds.postgres.kind import PostgresKind
from broker.kinds.values import LeaseToEnd
from broker.models import Dataset
from broker.runtime.parts import vault_of
from tests.support.fighting import HELD_OPEN, Session
from tests.support.world import DEIDENTIFIED, Signed, World

KIND = PostgresKind()
# What the kind declares: see PostgresKind.ending.
DECLARED_SECONDS = 5.0


class Fighter:
    """A guest with a credential of its own, and what its statements name."""

    def __init__(self, world: World, other: str = "", beside: Fighter | None = None) -> None:
        """Somebody of its own, or one more credential of another's."""
        self.world = world
        signed, dataset, _ = (beside.signed, beside.dataset, None) if beside else world.guest()
        self.signed: Signed = signed
        self.dataset: Dataset = dataset
        self.handed = world.issue(self.signed, self.dataset)
        assert self.handed.values is not None
        self.user, self.view = self.handed.values["username"], self.handed.values["relation"]
        group = f"gks_{short(world.slice_id(self.dataset))}"
        self.names = {"self": self.user, "view": self.view, "other": other or self.user, "group": group}

    def statements(self, name: str) -> list[str]:
        """What it holds open under a name of `HELD_OPEN`."""
        return [type(one)(one.format(**self.names)) for one in HELD_OPEN[name]]

    def log_in(self) -> Session:
        """One more session."""
        return self.world.connect(self.handed)

    def session(self) -> closing[Session]:
        """One more session for a block, which may have been ended when the block is."""
        return closing(self.log_in())

    def to_end(self) -> LeaseToEnd:
        """The lease as the worker hands it to the kind."""
        lease = self.world.lease(self.handed.lease.id)
        return LeaseToEnd(lease.id, lease.handle, DEIDENTIFIED, lease.backend_lease_id)


def end(world: World, fighters: list[Fighter], kind: PostgresKind = KIND) -> tuple[list[str], float]:
    """End them as the worker does; what was said of each, and after how many seconds."""
    ender = vault_of(world.settings, "ender")
    ender.secret("connections/data/watch", remembered=True)
    leases = [fighter.to_end() for fighter in fighters]
    began = time.monotonic()
    outcomes = kind.end_many(ender, leases)
    took = time.monotonic() - began
    return [str(outcomes[lease.id]) for lease in leases], took


@contextmanager
def permissive(world: World) -> Iterator[None]:
    """A server whose administrator could not forbid what only a superuser can: everything is as PostgreSQL has it."""
    functions = "pg_advisory_lock(bigint), pg_logical_emit_message(boolean, text, text, boolean), pg_notify(text, text)"
    with world.admin() as admin:
        admin.execute("ALTER EVENT TRIGGER guestkey_refuse_definitions DISABLE")
        admin.execute(f"GRANT EXECUTE ON FUNCTION {functions} TO PUBLIC")
    try:
        yield
    finally:
        with world.admin() as admin:
            admin.execute("ALTER EVENT TRIGGER guestkey_refuse_definitions ENABLE")
            admin.execute(f"REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC")
