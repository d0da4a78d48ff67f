"""Row filters over HTTP: a value is kept exactly as it was sent, or refused before anything is made."""

from __future__ import annotations

import json
import secrets
import shlex
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from broker.embedded.stack import Stack
from broker.runtime.parts import vault_of
from broker.web.portal.dataset_wizard import commands
from broker.worker import slice_registration
from guestkey.cli.commands.registering import condition
from tests.support.registering import register_waiting
from tests.support.world import World
from tests.web.conftest import ClientOf

TABLE = """
CREATE SCHEMA sums;
CREATE TABLE sums.bills (id bigint, amount numeric(24,4), due date, site text, open boolean);
INSERT INTO sums.bills VALUES (9007199254740991, 99999999999999.9950, '2026-01-01', 'Ulm, Nord', true),
  (9007199254740992, 99999999999999.9960, '2026-01-02', 'Ulm', true),
  (9007199254740993, 100000000000000, '2026-01-03', 'Bonn', false);
GRANT USAGE ON SCHEMA sums TO guestkey_registrar;
GRANT SELECT ON sums.bills TO guestkey_registrar;
"""
COLUMNS = ["id", "amount", "due", "site", "open"]


@pytest.fixture(scope="module", autouse=True)
def bills(stack: Stack) -> Iterator[None]:
    """A table with large and precise numbers, for this file."""
    with psycopg.connect(stack.postgres.url("postgres", "data"), autocommit=True) as session:
        session.execute(TABLE)
        yield
        session.execute("DROP SCHEMA sums CASCADE")


@pytest.fixture
def api(world: World, client_of: ClientOf) -> httpx.Client:
    """An admin's client; the database was read."""
    client = client_of(world.person(roles=("admin",)))
    assert client.post("/connections/data/read").status_code == 202
    slice_registration.read_catalogues(world.ender, vault_of(world.settings, "setup"))
    return client


def add(world: World, api: httpx.Client, rows: str, *, name: str = "part", table: str = "bills") -> httpx.Response:
    """Add a slice with these filters, written in JSON."""
    place = {"connection": "data", "schema": "sums", "table": table, "columns": COLUMNS}
    body = json.dumps({"name": name, "binding": {**place, "rows": []}}).replace('"rows": []', f'"rows": {rows}')
    world_dataset = world.dataset()
    headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_hex(8)}
    return api.post(f"/datasets/{world_dataset.slug}/slices", content=body.encode(), headers=headers)


def shows(world: World, made: httpx.Response) -> list[int]:
    """What a guest of the slice reads."""
    assert made.status_code == 201, made.text
    register_waiting(world)
    view = f"slices.v_{made.json()['id'].removeprefix('sl_')}"
    with world.admin() as admin:
        return [row[0] for row in admin.execute(f"SELECT id FROM {view} ORDER BY id").fetchall()]


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ('[["id", "=", 9007199254740992]]', [2]),
        ('[["id", "in", [9007199254740993, "9007199254740991"]]]', [1, 3]),
        ('[["amount", "<=", 99999999999999.995]]', [1]),
        ('[["amount", "<=", "99999999999999.995"]]', [1]),
        ('[["amount", ">=", 1e14]]', [3]),
        ('[["due", ">", "2026-01-01"], ["open", "=", true]]', [2]),
        ('[["open", "=", "false"]]', [3]),
        ('[["site", "in", ["Ulm, Nord", "Bonn"]]]', [1, 3]),
    ],
)
def test_filter_value_is_stored_exactly_as_sent(world: World, api: httpx.Client, rows: str, shown: list[int]) -> None:
    assert [number - 9007199254740990 for number in shows(world, add(world, api, rows))] == shown


@pytest.mark.parametrize(
    "value",
    [
        *('"a\\ud800"', '"a\\u0000"', "NaN", "Infinity", "1e999", "9223372036854775808", "null", "{}", "[1]"),
        '"' + "x" * 1001 + '"',
    ],
)
def test_invalid_filter_value_is_refused_with_its_position(world: World, api: httpx.Client, value: str) -> None:
    for rows in (f'[["site", "=", {value}]]', f'[["site", "in", ["Ulm", {value}]]]'):
        answer = add(world, api, rows)
        assert answer.status_code == 422, answer.text
        assert answer.json().get("errors", [{}])[0].get("pointer") == "/binding/rows", answer.text


@pytest.mark.parametrize(
    "row", [["due", ">=", "tomorrow"], ["id", "=", "x"], ["site", "=", 5], ["open", "=", "yes"], ["amount", "=", "NaN"]]
)
def test_mistyped_filter_value_is_refused_and_the_slice_name_stays_free(
    world: World, api: httpx.Client, row: list[Any]
) -> None:
    dataset, place = world.dataset(), {"connection": "data", "schema": "sums", "table": "bills", "columns": ["id"]}
    path = f"/datasets/{dataset.slug}/slices"
    refused = api.post(path, json={"name": "part", "binding": {**place, "rows": [row]}})
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/binding/rows", refused.text
    assert refused.json()["advice"].startswith("It takes"), refused.text
    assert api.post(path, json={"name": "part", "binding": {**place, "rows": []}}).status_code == 201


@pytest.mark.parametrize("value", ["12345", '"Paris"', "= Paris", "Ulm, Nord", " x", "a\nb", "\u200b", "true", "'"])
def test_command_shown_in_the_portal_creates_the_same_slice(value: str) -> None:
    rows = [["site", "=", value], ["site", "in", [value, "Bonn"]], ["site", "not_null"]]
    content = {
        "dataset": "bills",
        "slice": "part",
        "slice_description": "",
        "connection": "data",
        "table": ["sums", "bills"],
        "columns": ["id"],
        "rows": rows,
    }
    words = shlex.split(commands(content))
    typed = [words[at + 1] for at, word in enumerate(words) if word == "--where"]
    assert [condition(text) for text in typed] == rows
