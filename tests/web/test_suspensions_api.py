"""The kill switch over the API: the dry run, who may, two at once, and what a report shows to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from broker.keystore.vault import Vault
from broker.kinds.discovery import kinds
from broker.kinds.names import user_of
from broker.kinds.values import Exposed, LeaseToEnd
from broker.models import Dataset, Lease
from tests.support.world import PICTURES, World
from tests.web.conftest import ClientOf


@pytest.mark.fast
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


def test_leases_since_the_dry_run_are_included_and_reported(world: World, client_of: ClientOf) -> None:
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


def test_suspensions_and_reports_are_restricted(world: World, client_of: ClientOf) -> None:
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


def test_invalid_input_is_refused_without_changes(world: World, client_of: ClientOf) -> None:
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


def test_failing_leases_show_the_manual_command_of_their_backend(world: World, client_of: ClientOf) -> None:
    vendor = world.vendor()
    signed, owner = world.person(vendor), world.person()
    admin = client_of(world.person(roles=("admin",)))
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES}, owner=owner)
    world.grant(dataset, signed)
    lease = world.issue(signed, dataset, kind="s3").lease
    begun = admin.post(f"/people/{signed.id}/suspend", json={"reason": "left"}).json()
    world.change(Lease, lease.id, state="revoke_failed", next_attempt_at=lease.expires_at)
    (outcome,) = admin.get(f"/suspensions/{begun['suspension']}").json()["outcomes"]
    assert outcome["by_hand"].startswith(f"aws s3api put-bucket-policy --bucket {PICTURES['bucket']}")
    assert lease.handle in outcome["by_hand"]
    world.change(Lease, lease.id, next_attempt_at=world.now(), claimed_until=None)
    world.wait_sweeping(lease.id, "revoked")


def test_report_shows_end_confirmation_or_exposure_of_each_lease(
    world: World, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three endings of one suspension: confirmed, valid where nobody asks, and one its backend cannot end sooner."""
    signed, dataset, _ = world.guest()
    until = world.now() + timedelta(seconds=250)
    ended, offline = world.issue(signed, dataset).lease, world.issue(signed, dataset, kind="token").lease
    held, stuck = world.issue(signed, dataset, kind="token").lease, world.issue(signed, dataset).lease
    real = kinds["token"].end_many

    def end_many(vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        exposed = Exposed(until, "the store ends a session only by its own expiry")
        return {id_: exposed if id_ == held.id else said for id_, said in real(vault, leases).items()}

    monkeypatch.setattr(kinds["token"], "end_many", end_many)
    admin = client_of(world.person(roles=("admin",)))
    run = admin.get("/suspensions/preview", params={"what": "person", "target": signed.id}).json()
    assert run["counts"]["leases"] == {"postgres": 2, "token": 2}
    assert run["worst"] is None
    assert datetime.fromisoformat(run["latest"]["token"]) == held.expires_at
    with world.admin("postgres") as database:
        name = user_of(stuck.handle)
        database.execute(f'CREATE TABLE public.held_by_one (x int); ALTER TABLE public.held_by_one OWNER TO "{name}"')
    try:
        begun = admin.post(f"/people/{signed.id}/suspend", json={"reason": "left"}).json()
        for lease in (ended, offline):
            world.wait_sweeping(lease.id, "revoked")
        world.wait_sweeping(stuck.id, "revoke_failed")
        path = f"/suspensions/{begun['suspension']}"
        report = admin.get(path).json()
    finally:
        with world.admin("postgres") as database:
            database.execute("DROP TABLE public.held_by_one")
    assert [report[name] for name in ("finished", "total", "confirmed", "failing", "exposed")] == [False, 4, 2, 1, 1]
    by_id = {outcome["lease"]: outcome for outcome in report["outcomes"]}
    assert [outcome["lease"] for outcome in report["outcomes"]][:2] == [stuck.id, held.id], "problems come first"
    assert by_id[stuck.id]["error"] and "drop_user" in by_id[stuck.id]["by_hand"] and by_id[stuck.id]["attempts"] == 1
    assert by_id[stuck.id]["next_attempt_at"]
    worst = stuck.expires_at + timedelta(seconds=kinds["postgres"].ending.worst_case or 0)
    assert datetime.fromisoformat(by_id[stuck.id]["exposed_until"]) == worst
    assert datetime.fromisoformat(by_id[held.id]["exposed_until"]) == until and not by_id[held.id]["ended_at"]
    assert by_id[ended.id]["ended_at"] and by_id[ended.id]["confirmed_by"].startswith("postgresql")
    assert by_id[ended.id]["exposed_until"] is None
    assert by_id[offline.id]["confirmed_by"] == "introspection: inactive"
    assert datetime.fromisoformat(by_id[offline.id]["exposed_until"]) == offline.expires_at
    kind = {one["kind"]: one for one in report["by_kind"]}
    assert (kind["postgres"]["total"], kind["postgres"]["failing"], kind["postgres"]["worst_case"]) == (2, 1, 60)
    assert (kind["token"]["confirmed"], kind["token"]["exposed"], kind["token"]["worst_case"]) == (1, 1, None)
    assert (kind["token"]["offline"], kind["postgres"]["offline"]) == (2, 0)
    brief = admin.get(path, params={"only_open": True}).json()
    assert [outcome["lease"] for outcome in brief["outcomes"]] == [stuck.id, held.id]
    assert (brief["total"], brief["confirmed"], brief["events"]) == (4, 2, [])
    world.wait_sweeping(stuck.id, "revoked")
