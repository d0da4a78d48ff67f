"""One's own notices over the API, and nobody else's."""

from __future__ import annotations

from broker.base.database import clock
from broker.log import audit
from broker.notices import outbox
from tests.support.world import World
from tests.web.conftest import ClientOf


def test_notices_and_choices_belong_to_one_person(world: World, client_of: ClientOf) -> None:
    admin, other = world.person(roles=("admin",)), world.person(world.vendor())
    with world.database.transaction() as tx:
        for _ in range(2):
            audit.record(tx, "installation.opened", actor="system", subject="installation:1", now=clock(tx))
    while outbox.deliver_outbox(world.ender):
        continue
    api, foreign = client_of(admin), client_of(other)
    listed = api.get("/notices", params={"limit": 200}).json()
    # An admin may have heard of other things, too.
    titles = [item["title"] for item in listed["items"]]
    assert listed["unread"] >= 2 and titles.count("Guestkey was reopened") == 2
    assert foreign.get("/notices").json() == {"items": [], "next_cursor": None, "unread": 0}
    newest = listed["items"][0]["id"]
    assert foreign.post("/notices/read", json={"up_to": newest}).json() == {"unread": 0}
    assert api.get("/notices").json()["unread"] >= 2, "somebody else's reading is not theirs"
    assert api.post("/notices/read", json={"up_to": newest}).json() == {"unread": 0}
    assert api.post("/notices/read", json={"up_to": "\x00"}).status_code == 422


def test_valid_choices_are_stored_and_invalid_ones_refused(world: World, client_of: ClientOf) -> None:
    api = client_of(world.person(roles=("admin",)))
    held = api.get("/notices/choices").json()
    assert {topic["choice"] for topic in held["topics"]} == {"now"} and held["mails"] is False
    body = {"topics": {"joins": "digest"}, "digest_hour": 6, "digest_zone": "Asia/Tokyo"}
    changed = api.post("/notices/choices", json=body)
    assert changed.status_code == 200, changed.text
    again = api.get("/notices/choices").json()
    assert (again["digest_hour"], again["digest_zone"]) == (6, "Asia/Tokyo")
    assert {t["name"]: t["choice"] for t in again["topics"]}["joins"] == "digest"
    for wrong in (
        {"topics": {"emergency": "off"}},
        {"topics": {"staff": "off"}},
        {"topics": {"joins": "never"}},
        {"digest_hour": 24},
        {"digest_zone": "../../etc/passwd"},
    ):
        assert api.post("/notices/choices", json=wrong).status_code == 422, wrong
    service = client_of(world.service())
    assert service.get("/notices").status_code == 403


def test_admins_add_test_and_remove_channels(world: World, client_of: ClientOf) -> None:
    admin, auditor = client_of(world.person(roles=("admin",))), client_of(world.person(roles=("auditor",)))
    body = {
        "kind": "webhook",
        "name": "Incidents",
        "target": "https://hooks.example.org/path-canary",
        "topics": ["emergency"],
    }
    made = admin.post("/notice-channels", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["secret"].startswith("whsec_") and made.json()["shown"] == "https://hooks.example.org/…"
    path = f"/notice-channels/{made.json()['id']}"
    listed = auditor.get("/notice-channels")
    assert made.json()["secret"] not in listed.text and "path-canary" not in listed.text + made.text
    assert auditor.post("/notice-channels", json=body).status_code == 403
    assert auditor.post(f"{path}/test").status_code == 403
    tried = admin.post(f"{path}/test").json()
    assert tried["state"] == "waiting"
    assert tried["id"] in {item["id"] for item in auditor.get("/notice-deliveries").json()["items"]}
    assert admin.post(f"{path}/remove").json()["removed_at"]
    assert admin.post(f"{path}/test").status_code == 409
    assert made.json()["id"] not in {item["id"] for item in admin.get("/notice-channels").json()["items"]}
    for wrong in ({"target": "http://inner/"}, {"topics": ["none"]}, {"kind": "pigeon"}, {"name": "a\u202eb"}):
        assert admin.post("/notice-channels", json=body | wrong).status_code == 422, wrong


def test_adding_a_channel_needs_a_fresh_second_factor(world: World, client_of: ClientOf) -> None:
    stale = client_of(world.person(roles=("admin",), factor_age=3600))
    body = {"kind": "webhook", "name": "A", "target": "https://hooks.example.org/", "topics": ["emergency"]}
    answer = stale.post("/notice-channels", json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "insufficient_user_authentication")
