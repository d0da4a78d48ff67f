"""SQLAlchemy with `guestkey.postgres`, on the real database: connections are made with a live lease, or not at all."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy
from sqlalchemy import text

import guestkey
from guestkey import Client, postgres
from tests.sdk.conftest import ClientOf
from tests.support.world import World
from tests.web.conftest import Replica

pytestmark = pytest.mark.usefixtures("worker")
USER = text("SELECT current_user")


def who(engine: sqlalchemy.Engine) -> str:
    """As whom a connection of the pool is made."""
    with engine.connect() as connection:
        return str(connection.scalar(USER))


def test_one_lease_serves_a_pool_and_ends_with_the_client(world: World, replica: Replica) -> None:
    signed, dataset, _ = world.guest()
    with Client(replica.url, token=signed.token) as client:
        credentials = client.credentials(dataset.slug, kind="postgres")
        engine = sqlalchemy.create_engine("postgresql+psycopg://", pool_size=3, max_overflow=0)
        postgres.attach(engine, credentials)
        with ThreadPoolExecutor(4) as pool:
            users = set(pool.map(lambda _: who(engine), range(8)))
        assert len(users) == 1
        with engine.connect() as connection:
            assert connection.scalar(text(f"SELECT count(*) FROM {postgres.relation(credentials)}"))
        lease = credentials.current()
        engine.dispose()
    world.wait_for(lease.id, "revoked")
    assert world.roles_of(lease.id) == 0


def test_connection_is_replaced_before_its_lease_ends(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    client = client_of(signed)
    credentials = client.credentials(dataset.slug, kind="postgres", lifetime=10)
    engine = sqlalchemy.create_engine("postgresql+psycopg://", pool_size=1, max_overflow=0)
    postgres.attach(engine, credentials)
    first = who(engine)
    # As for a lease that may live no longer: it is not renewed, and so replaced.
    lease = credentials.current()
    client._renewing.drop(lease)
    assert who(engine) == first
    time.sleep(max(lease.seconds_left() - 1.8, 0))
    second = who(engine)
    assert second != first and second.startswith("gk_")
    engine.dispose()


def test_revoked_lease_is_replaced_if_allowed_and_otherwise_denied(world: World, client_of: ClientOf) -> None:
    signed, dataset, grant = world.guest()
    client = client_of(signed)
    engine = postgres.engine(client, dataset.slug, pool_size=1, max_overflow=0)
    first = who(engine)
    lease_id = first.split("_", 2)[2]
    client._api().post(f"/leases/{lease_id}/revoke", {})
    world.wait_for(lease_id, "revoked")
    second = who(engine)
    assert second != first
    admin = world.person(roles=("admin",))
    client_of(admin)._api().post(f"/grants/{grant.id}/revoke", {"reason": "the project is over"})
    world.wait_for(second.split("_", 2)[2], "revoked")
    with pytest.raises(guestkey.Denied):
        who(engine)
    engine.dispose()
