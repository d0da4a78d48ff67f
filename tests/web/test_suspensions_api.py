"""The kill switch over the API: the dry run, who may, two at once, and what a report shows to whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from broker.models import Dataset
from tests.support.world import World
from tests.web.conftest import ClientOf


def test_a_dry_run_counts_and_changes_nothing(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    for _ in range(2):
        world.issue(signed, dataset)
    admin = client_of(world.person(roles=("admin",)))
    vendor_id = signed.caller.vendor_id
    run = admin.get("/suspensions/preview", params={"what": "vendor", "target": vendor_id}).json()
    assert run["counts"] == {
        "people": 1,
        "services": 0,
        "sessions": 0,
        "tokens": 1,
        "grants": 1,
        "requests": 0,
        "leases": {"postgres": 2},
    }
    assert run["worst"] == 60 and run["endings"]["postgres"]["how"] and run["remains"]
    assert admin.get(f"/vendors/{vendor_id}").json()["status"] == "active"
    same = admin.get("/suspensions/preview", params={"what": "dataset", "target": dataset.slug}).json()
    assert (same["counts"]["leases"], same["counts"]["sessions"]) == ({"postgres": 2}, 0)


def test_newer_leases_are_included_and_the_report_says_so(world: World, client_of: ClientOf) -> None:
    signed, dataset, _ = world.guest()
    admin = client_of(world.person(roles=("admin",)))
    seen = admin.get("/suspensions/preview", params={"what": "person", "target": signed.id}).json()["counts"]
    lease = world.issue(signed, dataset).lease
    body = {"reason": "left", "message": "Ask Olga.", "expected": seen}
    answer = admin.post(f"/people/{signed.id}/suspend", json=body).json()
    assert answer["leases"] == [lease.id]
    world.wait_sweeping(lease.id, "revoked")
    report = admin.get(f"/suspensions/{answer['suspension']}").json()
    assert report["differences"] == {"postgres leases": [0, 1]}
    assert (report["finished"], report["total"], report["confirmed"]) == (True, 1, 1)
    assert report["outcomes"][0]["confirmed_by"].startswith("postgresql")


def test_two_admins_at_once_make_one_suspension(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    admins = [client_of(world.person(roles=("admin",))) for _ in range(2)]

    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(lambda admin: admin.post(f"/vendors/{vendor.id}/suspend", json={"reason": "now"}), admins)
        )
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    listed = admins[0].get("/suspensions", params={"what": "vendor", "state": "open", "limit": 100}).json()["items"]
    assert sum(item["target"] == vendor.id for item in listed) == 1


def test_who_may_suspend_and_who_sees_the_report(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    guest, lead = world.person(vendor), world.person(vendor, roles=("lead",))
    owner, auditor = world.person(), world.person(roles=("auditor",))
    dataset: Dataset = world.dataset(vendor, owner=owner, register=False)
    for who in (guest, lead, auditor, owner):
        api = client_of(who)
        refused = api.post(f"/vendors/{vendor.id}/suspend", json={"reason": "x"})
        assert refused.status_code == 403, who
        assert api.get("/suspensions/preview", params={"what": "vendor", "target": vendor.id}).status_code == 403
    assert client_of(guest).post(f"/datasets/{dataset.slug}/suspend", json={"reason": "x"}).status_code == 403
    begun = client_of(owner).post(f"/datasets/{dataset.slug}/suspend", json={"reason": "a leak"})
    assert begun.status_code == 202, begun.text
    path = f"/suspensions/{begun.json()['suspension']}"
    assert [client_of(who).get(path).status_code for who in (owner, auditor, lead, guest)] == [200, 200, 404, 404]
    assert client_of(lead).get("/suspensions").json()["items"] == []
    assert client_of(auditor).post(f"/datasets/{dataset.slug}/resume", json={"reason": "x"}).status_code == 403
    assert client_of(owner).post(f"/datasets/{dataset.slug}/resume", json={"reason": "mended"}).status_code == 200
    assert client_of(owner).get(path).json()["resumed_at"]


def test_odd_input_is_refused_with_nothing_changed(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    admin = client_of(world.person(roles=("admin",)))
    path = f"/vendors/{vendor.id}/suspend"
    for body in (
        {},
        {"reason": ""},
        {"reason": "x" * 2001},
        {"reason": "a\u0000b"},
        {"reason": "x", "message": "a\u202eb"},
        {"reason": "x", "expected": {"people": -1}},
        {"reason": "x", "unknown": 1},
    ):
        assert admin.post(path, json=body).status_code == 422, body
    assert admin.get(f"/vendors/{vendor.id}").json()["status"] == "active"
    for target in ("vn_nobody", "../people", "' OR 1=1 --"):
        found = admin.get("/suspensions/preview", params={"what": "vendor", "target": target})
        assert found.status_code == 404, found.text
    assert admin.get("/suspensions/su_nothing").status_code == 404
