"""Promise 13: a table renamed or changed under a slice is noticed; nothing is issued until its owner has looked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from broker.base.database import clock
from broker.base.errors import Conflict, Denied, Forbidden
from broker.kinds.mariadb.slices import view_of as view_of_ward
from broker.kinds.postgres.sessions import view_of
from broker.leases.issuing import Handed
from broker.models import Dataset, Notice, Slice
from broker.registry import slices
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from broker.worker.worker import Worker
from tests.support.mariadb import WARD, Mariadb
from tests.support.registering import register_waiting
from tests.support.world import CLINIC, Signed, World

TABLE = "visits_13"
_MAKE = (
    "DROP TABLE IF EXISTS clinic.{name} CASCADE",
    "CREATE TABLE clinic.{name} (id int, age int, exact int, site varchar(20))",
    "INSERT INTO clinic.{name} VALUES (1, 20, 23, '{site}'), (2, 30, 37, '{site}'), (3, 40, 41, 'rome')",
)
BINDING = {"table": TABLE, "columns": ["id", "age"], "rows": [["site", "=", "berlin"]]}
# What happens to the table, in words both servers understand, and what the owner is told of it.
CHANGES = {
    "replaced": (
        [f"ALTER TABLE clinic.{TABLE} RENAME TO {TABLE}_old", *(text for text in _MAKE[1:])],
        "a different table",
    ),
    "dropped and made again": (list(_MAKE), "a different table"),
    "renamed away": ([f"ALTER TABLE clinic.{TABLE} RENAME TO {TABLE}_old"], "no longer exists"),
    "column renamed and replaced": (
        [
            f"ALTER TABLE clinic.{TABLE} RENAME COLUMN age TO coarse",
            f"ALTER TABLE clinic.{TABLE} RENAME COLUMN exact TO age",
        ],
        "column age",
    ),
    "column of the filter replaced": (
        [
            f"ALTER TABLE clinic.{TABLE} RENAME COLUMN site TO place",
            f"ALTER TABLE clinic.{TABLE} ADD COLUMN site varchar(20)",
        ],
        "column site",
    ),
}


@dataclass
class Watched:
    """A slice with an owner, a guest who holds a live credential, and the server's administrator."""

    world: World
    owner: Signed
    guest: Signed
    dataset: Dataset
    handed: Handed
    run: Callable[[str], object]
    view: str

    @property
    def slice_id(self) -> str:
        """The id of the slice."""
        return self.world.slice_id(self.dataset)

    def slice_(self) -> Slice:
        """The slice as recorded now."""
        with self.world.database.transaction() as tx:
            return tx.get_one(Slice, self.slice_id)

    def change(self, statements: list[str]) -> None:
        """Change the table behind the broker's back."""
        for statement in statements:
            self.run(statement.format(name=TABLE, site="berlin"))

    def look(self) -> None:
        """One round of the worker's looking."""
        slice_registration.recheck_slices(self.world.ender, vault_of(self.world.settings, "setup"))


@pytest.fixture(params=["postgres", "mariadb"])
def watched(request: pytest.FixtureRequest, world: World) -> Watched:
    """A slice of a table of its own, in PostgreSQL and in MariaDB."""
    ward: Mariadb | None = request.getfixturevalue("ward") if request.param == "mariadb" else None

    def run(statement: str) -> object:
        if ward is not None:
            return ward.ask(statement.replace(" CASCADE", "").replace("RENAME TO ", "RENAME TO clinic."))
        with world.admin() as admin:
            return admin.execute(statement)

    for statement in (f"DROP TABLE IF EXISTS clinic.{TABLE}_old CASCADE", *_MAKE):
        run(statement.format(name=TABLE, site="berlin"))
    if ward is None:
        run(f"GRANT SELECT ON clinic.{TABLE} TO guestkey_registrar")
        run("ALTER DEFAULT PRIVILEGES IN SCHEMA clinic GRANT SELECT ON TABLES TO guestkey_registrar")
    owner, vendor = world.person(name="Olga Owner"), world.vendor()
    guest = world.person(vendor)
    binding = (CLINIC if ward is None else WARD) | BINDING
    dataset = world.dataset(vendor, owner=owner, kind=request.param, slices={"deidentified": binding})
    world.grant(dataset, guest)
    name = (view_of if ward is None else view_of_ward)(world.slice_id(dataset))
    if ward is not None:
        # MariaDB tells one table from the next by the second in which it was made.
        time.sleep(1.1)
    return Watched(world, owner, guest, dataset, world.issue(guest, dataset), run, name)


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_table_closes_the_slice_until_its_owner_confirms(watched: Watched, how: str) -> None:
    statements, said = CHANGES[how]
    watched.look()
    assert watched.slice_().state == "ready" and watched.world.lease(watched.handed.lease.id).state == "active"
    watched.change(statements)
    watched.look()
    changed = watched.slice_()
    assert changed.state == "changed" and said in changed.state_detail
    lease = watched.world.lease(watched.handed.lease.id)
    assert (lease.state, lease.end_cause) == ("revoking", "slice_changed")
    with pytest.raises(Denied) as denied:
        watched.world.issue(watched.guest, watched.dataset)
    (reason,) = [reason for reason in denied.value.decision.reasons if reason.code.startswith("slice_")]
    assert reason.code == "slice_changed" and "owner" in reason.advice
    assert watched.world.events(changed.id).count("slice.changed") == 1
    with watched.world.database.transaction() as tx:
        assert tx.scalars(select(Notice.kind).where(Notice.subject == changed.id)).all() == ["slice.changed"]
    watched.look()
    assert watched.world.events(changed.id).count("slice.changed") == 1


def test_owner_confirms_the_changed_table_in_one_step(watched: Watched) -> None:
    watched.change(CHANGES["dropped and made again"][0])
    watched.look()
    world, slug = watched.world, watched.dataset.slug
    admin = world.person(roles=("admin",))
    with world.database.transaction() as tx, pytest.raises(Forbidden):
        slices.confirm_slice(tx, admin.caller, slug, "deidentified", clock(tx))
    with world.database.transaction() as tx:
        slices.confirm_slice(tx, watched.owner.caller, slug, "deidentified", clock(tx))
    with world.database.transaction() as tx, pytest.raises(Conflict):
        slices.confirm_slice(tx, watched.owner.caller, slug, "deidentified", clock(tx))
    register_waiting(world)
    assert watched.slice_().state == "ready"
    watched.look()
    assert watched.slice_().state == "ready"
    assert world.issue(watched.guest, watched.dataset).values


def test_a_running_worker_notices_within_a_minute(watched: Watched, worker: Worker) -> None:
    watched.change(CHANGES["column renamed and replaced"][0])
    end = time.monotonic() + 60
    while watched.slice_().state != "changed":
        assert time.monotonic() < end, "nobody noticed within a minute"
        time.sleep(0.1)
    watched.world.wait_for(watched.handed.lease.id, "revoked", seconds=30)


def test_slice_of_an_earlier_version_is_rebuilt_and_stays_open(watched: Watched) -> None:
    watched.world.change(Slice, watched.slice_id, seen=None)
    watched.look()
    again = watched.slice_()
    assert again.state == "ready" and again.seen is not None and again.claimed_until is None
    assert watched.world.events(again.id)[-1] == "slice.remade"
    assert watched.world.lease(watched.handed.lease.id).state == "active"


def test_ordinary_table_use_is_not_a_change(world: World) -> None:
    """Rows, indexes, statistics, another column: of PostgreSQL's tables, which can be told by more than a time."""
    with world.admin() as admin:
        for statement in _MAKE:
            admin.execute(statement.format(name="busy_13", site="berlin"))
        admin.execute("GRANT SELECT ON clinic.busy_13 TO guestkey_registrar")
        dataset = world.dataset(slices={"deidentified": CLINIC | BINDING | {"table": "busy_13"}})
        admin.execute("CREATE INDEX ON clinic.busy_13 (id)")
        admin.execute("ALTER TABLE clinic.busy_13 ADD COLUMN more int")
        admin.execute("TRUNCATE clinic.busy_13")
        admin.execute("VACUUM FULL ANALYZE clinic.busy_13")
    slice_registration.recheck_slices(world.ender, vault_of(world.settings, "setup"))
    with world.database.transaction() as tx:
        assert tx.get_one(Slice, world.slice_id(dataset)).state == "ready"


def test_server_time_zone_change_is_not_a_table_change(watched: Watched, request: pytest.FixtureRequest) -> None:
    """Moments are shown in the zone that a server, a database or a log-in is set to."""
    if request.node.callspec.params["watched"] == "mariadb":
        elsewhere, back = ["SET GLOBAL time_zone = '+05:30'"], ["SET GLOBAL time_zone = 'SYSTEM'"]
    else:
        # A view in the table's place, whose query names a moment.
        watched.run(f"ALTER TABLE clinic.{TABLE} RENAME TO {TABLE}_old")
        watched.run(
            f"CREATE VIEW clinic.{TABLE} AS SELECT * FROM clinic.{TABLE}_old"
            " WHERE now() > '2026-01-01 00:00+00'::timestamptz AND now() - '2026-01-01 00:00+00' > interval '1 day 2 h'"
        )
        watched.look()
        with watched.world.database.transaction() as tx:
            slices.confirm_slice(tx, watched.owner.caller, watched.dataset.slug, "deidentified", clock(tx))
        register_waiting(watched.world)
        of = "ALTER ROLE guestkey_registrar"
        elsewhere = [
            f"{of} SET TimeZone = 'Asia/Kolkata'",
            f"{of} SET DateStyle = 'German'",
            f"{of} SET IntervalStyle = 'sql_standard'",
        ]
        back = [f"{of} RESET ALL"]
    watched.look()
    assert watched.slice_().state == "ready"
    try:
        for statement in elsewhere:
            watched.run(statement)
        watched.look()
        assert watched.slice_().state == "ready", watched.slice_().state_detail
    finally:
        for statement in back:
            watched.run(statement)


def test_earlier_slice_reading_a_renamed_table_is_closed(world: World) -> None:
    """Registered before anything was kept of its table: what its view reads is held against the names it should."""
    with world.admin() as admin:
        admin.execute("DROP TABLE IF EXISTS clinic.early_13_old CASCADE")
        for statement in _MAKE:
            admin.execute(statement.format(name="early_13", site="berlin"))
        admin.execute("GRANT SELECT ON clinic.early_13 TO guestkey_registrar")
        dataset = world.dataset(slices={"deidentified": CLINIC | BINDING | {"table": "early_13"}})
        id_ = world.slice_id(dataset)
        # As 0.1.0 made it.
        admin.execute(
            f"DROP VIEW {view_of(id_)}; CREATE VIEW {view_of(id_)} WITH (security_barrier) AS"
            " SELECT id, age FROM clinic.early_13 WHERE site = 'berlin';"
            f" DROP FUNCTION {view_of(id_).replace('slices.v_', 'slices_private.r_')}();"
            " ALTER TABLE clinic.early_13 RENAME TO early_13_old"
        )
        for statement in _MAKE[1:]:
            admin.execute(statement.format(name="early_13", site="berlin"))
    world.change(Slice, id_, seen=None)
    slice_registration.recheck_slices(world.ender, vault_of(world.settings, "setup"))
    with world.database.transaction() as tx:
        found = tx.get_one(Slice, id_)
    assert found.state == "changed" and "another table" in found.state_detail
