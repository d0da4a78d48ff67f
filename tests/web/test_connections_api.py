"""Everything that is connected, of every kind, in one list; and whether it answers, if workers know. Never a secret."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update

from broker.kinds.discovery import kinds
from broker.kinds.values import BROKER
from broker.leases import reconciling
from broker.models import Chore, Slice, UnreachablePlace
from broker.runtime import chores
from tests.support.world import World
from tests.web.conftest import BrowserOf, ClientOf

WHY = "The dataset's database does not answer."


@pytest.fixture
def admin(world: World, client_of: ClientOf) -> httpx.Client:
    """An admin's client."""
    return client_of(world.person(roles=("admin",)))


@pytest.fixture
def known(world: World) -> Iterator[World]:
    """Workers have asked `data`, where a slice has been for a while, in a round that just began."""
    world.change(Slice, world.slice_id(world.dataset()), created_at=world.now() - timedelta(minutes=5))
    with world.database.transaction() as tx:
        chores.at_once(tx, chores.RECONCILE)
    assert chores.take_on(world.database, chores.RECONCILE, chores.RECONCILE_SECONDS) == 0
    reconciling.reconcile(world.ender)
    yield world
    with world.database.transaction() as tx:
        tx.execute(delete(UnreachablePlace))


def listed(api: httpx.Client, **query: str) -> dict[tuple[str, str], Any]:
    """The connections by kind and name."""
    answer = api.get("/connections", params=query)
    assert answer.status_code == 200, answer.text
    return {(item["kind"], item["name"]): item for item in answer.json()["items"]}


def test_connections_of_every_kind_are_listed_without_a_secret(world: World, admin: httpx.Client) -> None:
    found = listed(admin)
    assert set(found) == {(kind, name) for kind in kinds for name in world.settings.connections(kind)}
    assert {("postgres", "data"), ("s3", "objects"), ("x509", "records")} <= set(found)
    for (kind, _), item in found.items():
        about = kinds[kind].connects
        assert about is not None and (item["to"], item["slice_is"]) == (about.to, about.slice_is)
        assert (item["state"] is None) == (kind != "postgres"), "only of databases is it read what they hold"
    assert found["s3", "objects"]["slice_is"] == "a prefix of a bucket"
    shown = admin.get("/connections").text
    for place in (place for kind in kinds for place in world.settings.connections(kind).values()):
        for name, value in place.model_dump(mode="json", exclude_none=True).items():
            assert name in ("host", "region") or len(str(value)) < 8 or str(value) not in shown, name


def test_connections_can_be_filtered_by_kind(admin: httpx.Client) -> None:
    assert set(listed(admin, kind="s3")) == {("s3", "objects")}
    assert listed(admin, kind="token") == {}
    wrong = admin.get("/connections", params={"kind": "nonesuch"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")


def test_connection_state_is_shown_if_workers_check_it(known: World, admin: httpx.Client) -> None:
    assert listed(admin)["postgres", "data"]["healthy"] is True
    assert listed(admin)["s3", "objects"]["healthy"] is None, "stores are not asked by themselves"
    reconciling.note_silent(known.ender, "postgres", (), {"data": WHY})
    item = listed(admin)["postgres", "data"]
    assert (item["healthy"], item["silent_why"]) == (False, WHY) and item["silent_since"]
    reconciling.note_silent(known.ender, "postgres", {"data"}, {})
    item = listed(admin)["postgres", "data"]
    assert (item["healthy"], item["silent_why"], item["silent_since"]) == (True, None, None)


def test_connection_state_is_unknown_after_an_internal_error_or_without_workers(
    known: World, admin: httpx.Client
) -> None:
    reconciling.note_silent(known.ender, "postgres", (), {BROKER: "It failed."})
    assert listed(admin)["postgres", "data"]["healthy"] is None
    reconciling.note_silent(known.ender, "postgres", (), {})
    assert listed(admin)["postgres", "data"]["healthy"] is True
    for due in (known.now() - timedelta(seconds=61), known.now() - timedelta(days=1)):
        with known.database.transaction() as tx:
            tx.execute(update(Chore).where(Chore.name == chores.RECONCILE).values(due_at=due))
        assert listed(admin)["postgres", "data"]["healthy"] is None


def test_connection_without_slices_is_not_checked(known: World, admin: httpx.Client) -> None:
    with known.database.transaction() as tx:
        tx.execute(update(Slice).where(Slice.kind == "postgres").values(created_at=known.now()))
    assert listed(admin)["postgres", "data"]["healthy"] is None


def test_dataset_registration_shows_unresponsive_connections(known: World, browser_of: BrowserOf) -> None:
    admin = browser_of(known.person(roles=("admin",)))
    assert "data: not responding" not in admin.get("/datasets/new").text
    reconciling.note_silent(known.ender, "postgres", (), {"data": WHY})
    page = admin.get("/datasets/new").text
    assert "data: not responding" in page and "objects (s3)" in page and "records (x509)" in page
