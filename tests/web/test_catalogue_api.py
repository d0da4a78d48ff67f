"""What a connected database holds, by name: read by the worker, shown to whom it concerns, never with a value."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from sqlalchemy import text

from broker.embedded.stack import Stack
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from tests.support.registering import register_waiting
from tests.support.world import World
from tests.web.conftest import ClientOf

ODD = """
CREATE SCHEMA odd;
CREATE TABLE odd.plain (id bigint PRIMARY KEY, e_mail text, born date, note text);
INSERT INTO odd.plain SELECT n, 'canary-' || n, '1990-01-01', repeat('canary ', 20) FROM generate_series(1, 100) n;
CREATE TABLE odd."Quo""ted.na.me" ("Col""umn" text, plain int);
CREATE TABLE odd.parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE odd.parts_2030 PARTITION OF odd.parts FOR VALUES FROM ('2030-01-01') TO ('2031-01-01');
CREATE VIEW odd.seen AS SELECT id FROM odd.plain;
CREATE TABLE odd.rows_apart (id int, owner text);
ALTER TABLE odd.rows_apart ENABLE ROW LEVEL SECURITY;
CREATE TABLE odd.half (shown int, hidden text);
CREATE TABLE odd.secret (id int);
CREATE TABLE odd.z_long_name_of_sixty_three_bytes_that_goes_on_until_it_is_fulll (id int);
CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE odd.far (id int) SERVER elsewhere;
GRANT USAGE ON SCHEMA odd TO guestkey_registrar;
GRANT SELECT ON ALL TABLES IN SCHEMA odd TO guestkey_registrar;
REVOKE ALL ON odd.secret, odd.half FROM guestkey_registrar;
GRANT SELECT (shown) ON odd.half TO guestkey_registrar;
ANALYZE odd.plain;
"""


@pytest.fixture(scope="module", autouse=True)
def odd(stack: Stack) -> Iterator[None]:
    """Tables of every sort in the database `data`, for this file."""
    with psycopg.connect(stack.postgres.url("postgres", "data"), autocommit=True) as session:
        session.execute(ODD)
        yield
        session.execute("DROP SCHEMA odd CASCADE; DROP FOREIGN DATA WRAPPER elsewhere CASCADE")


def read(world: World, api: httpx.Client) -> None:
    """Ask, and do the worker's part."""
    asked = api.post("/connections/data/read")
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting"), asked.text
    slice_registration.read_catalogues(world.ender, vault_of(world.settings, "setup"))


def test_every_kind_of_table_is_listed_correctly(world: World, client_of: ClientOf) -> None:
    api = client_of(world.person(roles=("admin",)))
    read(world, api)
    (shown,) = api.get("/connections", params={"kind": "postgres"}).json()["items"]
    assert (shown["name"], shown["state"], shown["cut"]) == ("data", "ready", False)
    found = api.get("/connections/data/tables", params={"part": "odd."}).json()
    tables = {table["name"]: table for table in found["items"]}
    assert set(tables) == {
        'Quo"ted.na.me', "far", "half", "parts", "plain", "rows_apart", "seen",
        "z_long_name_of_sixty_three_bytes_that_goes_on_until_it_is_fulll",
    }  # fmt: skip
    assert not tables['Quo"ted.na.me']["usable"] and tables["plain"]["usable"]
    assert [column["usable"] for column in tables['Quo"ted.na.me']["columns"]] == [False, True]
    assert tables["far"]["notes"] == ["foreign table"] and tables["seen"]["notes"] == ["view"]
    assert tables["parts"]["notes"] == ["partitioned"] and tables["rows_apart"]["notes"] == ["row security"]
    assert [column["name"] for column in tables["half"]["columns"]] == ["shown"]
    plain = {column["name"]: column for column in tables["plain"]["columns"]}
    assert tables["plain"]["rows"] == 100 and tables["seen"]["rows"] is None
    assert plain["e_mail"]["personal"] == "an e-mail address" and plain["born"]["personal"].startswith("a date")
    assert plain["note"]["personal"].startswith("free text") and plain["id"]["personal"].startswith("an identifier")
    with world.database.transaction() as tx:
        kept = tx.execute(text("SELECT string_agg(t::text, '') FROM guestkey.catalogue_table t")).scalar_one()
    assert "canary" not in kept and "Guestkey reads no values" in found["guessed"]


def test_tables_come_in_pages_by_name(world: World, client_of: ClientOf) -> None:
    with world.admin() as session:
        for number in range(60):
            session.execute(f"CREATE TABLE odd.many_{number:02} (id int)")
        session.execute("GRANT SELECT ON ALL TABLES IN SCHEMA odd TO guestkey_registrar")
    api = client_of(world.person(roles=("admin",)))
    read(world, api)
    first = api.get("/connections/data/tables", params={"part": "many_"}).json()
    rest = api.get("/connections/data/tables", params={"part": "many_", "cursor": first["next_cursor"]}).json()
    names = [table["name"] for table in first["items"] + rest["items"]]
    assert names == [f"many_{number:02}" for number in range(60)] and rest["next_cursor"] is None
    for bad in ({"cursor": "nowhere"}, {"part": "%"}, {"part": "\x00"}):
        answer = api.get("/connections/data/tables", params=bad)
        assert answer.status_code in (200, 422) and not answer.json().get("items"), bad


def test_only_admins_see_tables_of_a_database(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    for other in (world.person(), world.person(roles=("auditor",)), world.person(vendor, roles=("lead",))):
        api = client_of(other)
        for answer in (
            api.get("/connections"),
            api.get("/connections/data/tables"),
            api.get("/connections/nonesuch/tables"),
            api.post("/connections/data/read"),
            api.post("/connections/nonesuch/read"),
        ):
            assert answer.status_code == 403, answer.text
    admin = client_of(world.person(roles=("admin",)))
    assert admin.post("/connections/nonesuch/read").status_code == 404


def test_failed_slice_shows_the_reason_and_is_retried(world: World, client_of: ClientOf) -> None:
    api = client_of(world.person(roles=("admin",)))
    dataset = world.dataset(register=False)
    name = f"late_{secrets.token_hex(4)}"
    binding = {"connection": "data", "schema": "odd", "table": name, "columns": ["id"]}
    path = f"/datasets/{dataset.slug}/slices"
    assert api.post(path, json={"name": "late", "binding": binding}).status_code == 201
    register_waiting(world)
    shown = {item["name"]: item for item in api.get(f"/datasets/{dataset.slug}").json()["slices"]}["late"]
    assert shown["state"] == "failed" and f"GRANT SELECT ON odd.{name} TO guestkey_registrar" in shown["state_detail"]
    with world.admin() as session:
        session.execute(f"CREATE TABLE odd.{name} AS SELECT generate_series(1, 500) id")
        session.execute(f"GRANT SELECT ON odd.{name} TO guestkey_registrar; ANALYZE odd.{name}")
    assert client_of(world.person()).post(f"{path}/late/retry").status_code == 403
    assert api.post(f"{path}/late/retry").json()["state"] == "registering"
    assert api.post(f"{path}/late/retry").status_code == 409
    register_waiting(world)
    shown = {item["name"]: item for item in api.get(f"/datasets/{dataset.slug}").json()["slices"]}["late"]
    assert (shown["state"], shown["rows_estimate"]) == ("ready", 500)
    assert shown["id"] == world.slice_id(dataset, "late"), "gateways are set up with it"
    assert world.events(world.slice_id(dataset, "late")) == [
        "slice.added", "slice.failed", "slice.retried", "slice.ready",
    ]  # fmt: skip
