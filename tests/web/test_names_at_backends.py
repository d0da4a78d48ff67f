"""A lease is found by what it is called at its backend, as in PostgreSQL's `pg_stat_activity`."""

from __future__ import annotations

from broker.kinds.names import lease_of, user_of
from tests.support.world import World
from tests.web.conftest import BrowserOf, ClientOf


def test_lease_is_found_by_the_name_of_its_database_user(
    world: World, client_of: ClientOf, browser_of: BrowserOf
) -> None:
    signed, dataset, _ = world.guest()
    handed = world.issue(signed, dataset)
    assert handed.values is not None
    user = handed.values["username"]
    admin = world.person(roles=("admin",))
    for name in (user, f" {user} ", user.upper()):
        found = browser_of(admin).get("/search", params={"q": name})
        assert found.headers["Location"] == f"/leases/{handed.lease.id}", name
    assert client_of(admin).get(f"/leases/{user}").json()["id"] == handed.lease.id
    assert client_of(world.person(world.vendor())).get(f"/leases/{user}").status_code == 404
    other = user[:-1] + ("1" if user.endswith("0") else "0")
    assert client_of(admin).get(f"/leases/{other}").status_code == 404
    ended = client_of(admin).post(f"/leases/{user}/revoke", json={"reason": "seen in the database"})
    assert (ended.status_code, ended.json()["id"]) == (202, handed.lease.id)


def test_lease_is_found_by_its_name_at_every_backend() -> None:
    lease = "l01k9zq6c5w3m8v4x7r2t1y0b9d"
    handle = f"ab12cd-{lease}"
    for name in (user_of(handle), handle, f"token-{handle}"):
        assert lease_of(name) == lease
    for name in (lease, "gk_postgres", f"x{handle}", f"{handle}x", "pe_01k9zq6c5w3m8v4x7r2t1y0b9d"):
        assert lease_of(name) == name


def test_too_long_purpose_is_refused_and_kept(world: World, browser_of: BrowserOf) -> None:
    """A field with a greatest length would cut what is pasted without a word."""
    vendor = world.vendor()
    dataset = world.dataset(vendor)
    browser = browser_of(world.person(vendor))
    page = browser.get("/ask", params={"dataset": dataset.slug}).text
    assert "<textarea" in page and 'maxlength="2000"' not in page
    long = "x" * 2001
    form = {
        "csrf_token": browser.csrf,
        "dataset": dataset.slug,
        "role": "annotator",
        "period": "86400",
        "purpose": long,
    }
    refused = browser.post("/requests", data=form)
    assert "2000 characters" in refused.text and long in refused.text
