"""Promise 12, MariaDB: no slice is made of a view that a guest could turn by what it sets in its session."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.keystore.vault import Vault
from broker.kinds.mariadb.slices import register, unregister, view_of
from broker.models import Slice
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from tests.support.mariadb import WARD, Mariadb, ask, ward_guest
from tests.support.world import World

SHOWN = WARD | {"schema": "followed", "table": "shown", "columns": ["id"]}
REFUSED = {
    "an embargo": ("SELECT id FROM clinic.patients WHERE now() < '2020-01-01'", "current_timestamp"),
    "today": ("SELECT id FROM clinic.patients WHERE curdate() < '2020-01-01'", "curdate"),
    "the last id": ("SELECT id FROM clinic.patients WHERE id = last_insert_id()", "last_insert_id"),
    "the database in use": ("SELECT id FROM clinic.patients WHERE site = database()", "database"),
    "by chance": ("SELECT id FROM clinic.patients WHERE rand() < 0.1", "rand"),
    "a name of a month": ("SELECT id, monthname('2026-01-01') AS m FROM clinic.patients", "monthname"),
    "a list that is cut": ("SELECT max(id) AS id, group_concat(name) AS n FROM clinic.patients", "group_concat"),
    "a lock": ("SELECT id FROM clinic.patients WHERE is_free_lock('x')", "is_free_lock"),
    "a function": ("SELECT id FROM clinic.patients WHERE site = followed.tenant()", "followed.tenant"),
    "within a subquery": (
        "SELECT id FROM clinic.patients p WHERE id IN (SELECT id FROM clinic.patients WHERE now() < '2020-01-01')",
        "current_timestamp",
    ),
}
ALLOWED = (
    "SELECT id FROM clinic.patients WHERE site = 'berlin'",
    "SELECT id FROM clinic.patients WHERE name <> 'now() it''s \\\\' AND upper(site) = 'BERLIN'",
    "SELECT id, name AS `now()` FROM clinic.patients",
    "SELECT p.id FROM clinic.patients p JOIN (clinic.patients q JOIN clinic.patients r USING (id)) USING (id)",
    "SELECT p.id FROM clinic.patients p WHERE trim(LEADING 'x' FROM p.name) <> ''",
    "SELECT p.id FROM clinic.patients p WHERE extract(DAY FROM CAST('2026-01-01' AS date)) = p.age",
)


@pytest.fixture
def setup(world: World, ward: Mariadb) -> Iterator[Vault]:
    """OpenBao as the identity that registers slices; a database of views, and a function that asks for a variable."""
    ward.ask("CREATE OR REPLACE DATABASE followed")
    ward.ask("CREATE FUNCTION followed.tenant() RETURNS varchar(30) DETERMINISTIC RETURN @tenant")
    ward.ask("GRANT EXECUTE ON FUNCTION followed.tenant TO guestkey_registrar@'%'")
    ward.ask("GRANT SELECT, SHOW VIEW ON followed.* TO guestkey_registrar@'%'")
    yield vault_of(world.settings, "setup")
    ward.ask("REVOKE EXECUTE ON FUNCTION followed.tenant FROM guestkey_registrar@'%'")
    ward.ask("REVOKE SELECT, SHOW VIEW ON followed.* FROM guestkey_registrar@'%'")
    ward.ask("DROP DATABASE followed")


@pytest.mark.parametrize("how", REFUSED)
def test_view_depending_on_session_settings_is_refused(ward: Mariadb, setup: Vault, how: str) -> None:
    query, said = REFUSED[how]
    ward.ask(f"CREATE OR REPLACE VIEW followed.shown AS {query}")
    ward.ask("CREATE OR REPLACE VIEW followed.above AS SELECT a.id FROM followed.shown a")
    for table in ("shown", "above"):
        with pytest.raises(Invalid, match=re.escape(f"The view followed.shown calls {said}")):
            register(setup, new_id("sl"), SHOWN | {"table": table})


@pytest.mark.parametrize("query", ALLOWED)
def test_view_independent_of_session_settings_is_accepted(ward: Mariadb, setup: Vault, query: str) -> None:
    ward.ask(f"CREATE OR REPLACE VIEW followed.shown AS {query}")
    slice_id = new_id("sl")
    register(setup, slice_id, SHOWN)
    unregister(setup, slice_id, SHOWN)


def test_generated_column_depending_on_the_session_is_refused(ward: Mariadb, setup: Vault) -> None:
    ward.ask("CREATE TABLE followed.computed (id int, late datetime AS (now()) VIRTUAL)")
    with pytest.raises(Invalid, match=r"The column late of followed\.computed calls current_timestamp"):
        register(setup, new_id("sl"), SHOWN | {"table": "computed"})


def test_view_with_an_unreadable_definition_is_refused(ward: Mariadb, setup: Vault) -> None:
    ward.ask("CREATE OR REPLACE VIEW followed.shown AS SELECT id FROM clinic.patients WHERE site = 'berlin'")
    ward.ask("REVOKE SHOW VIEW ON followed.* FROM guestkey_registrar@'%'")
    try:
        with pytest.raises(Invalid, match=r"GRANT SHOW VIEW ON followed\.shown"):
            register(setup, new_id("sl"), SHOWN)
    finally:
        ward.ask("GRANT SHOW VIEW ON followed.* TO guestkey_registrar@'%'")


def test_existing_slice_depending_on_session_settings_is_closed(world: World, ward: Mariadb, setup: Vault) -> None:
    ward.ask("CREATE OR REPLACE VIEW followed.shown AS SELECT id FROM clinic.patients WHERE site = 'berlin'")
    signed, dataset = ward_guest(world, SHOWN)
    handed = world.issue(signed, dataset)
    slice_id = world.slice_id(dataset)
    slice_registration.recheck_slices(world.ender, setup)
    assert state(world, slice_id)[0] == "ready"
    ward.ask("CREATE OR REPLACE VIEW followed.shown AS SELECT id FROM clinic.patients WHERE now() < '2020-01-01'")
    assert handed.values is not None
    with ward.guest(handed.values) as session:
        count = f"SELECT count(*) FROM {view_of(slice_id)}"
        assert ask(session, count) == ((0,),)
        ask(session, "SET timestamp = 86400")
        assert ask(session, count) > ((0,),), "the guest turns back the clock"
    slice_registration.recheck_slices(world.ender, setup)
    closed, said = state(world, slice_id)
    assert closed == "changed" and "calls current_timestamp" in said


def state(world: World, slice_id: str) -> tuple[str, str]:
    """A slice's state, and what is said of it."""
    with world.database.transaction() as tx:
        found = tx.get_one(Slice, slice_id)
        return found.state, found.state_detail
