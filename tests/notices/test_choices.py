"""What people choose: at once, once a day, not at all; and what cannot be turned off."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from broker.base.database import clock
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import Window
from broker.log import audit
from broker.models import Delivery, NoticeAddress
from broker.notices import choices, digests, outbox
from broker.notices.digests import next_digest
from tests.notices.conftest import Office
from tests.notices.test_mail import alarm, asks, boss, scene
from tests.support.world import Signed


def choose(office: Office, signed: Signed, hour: int = 8, zone: str = "UTC", **wanted: str) -> None:
    with office.world.database.transaction() as tx:
        choices.set_preferences(tx, signed.caller, wanted, clock(tx), hour=hour, zone=zone)


def test_digest_is_one_mail_a_day(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    to = office.address(owner)
    choose(office, owner, to_decide="digest")
    requests = [asks(world, guest, dataset)]
    office.rounds()
    assert not office.server.to(to) and [item.state for item in office.deliveries(owner)] == ["digest"]
    now = world.now()
    assert digests.collect(office.parts, now) == 0, "its hour has not come"
    digests.collect(office.parts, now + timedelta(days=1))
    office.round(minutes=25 * 60)
    [mail] = office.server.to(to)
    assert mail["Subject"] == "Your digest: 1 notice" and f"/requests/{requests[0].id}" in mail.as_string()
    digests.collect(office.parts, now + timedelta(days=2))
    office.round(minutes=50 * 60)
    assert len(office.server.to(to)) == 1, "nothing new, no mail"


def test_notice_during_digest_collection_goes_to_the_next_digest(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    office.address(owner)
    choose(office, owner, to_decide="digest")
    request = asks(world, guest, dataset)
    office.rounds()
    with world.database.transaction() as tx:
        audit.record(tx, "request.made", actor="system", subject=request.id, now=clock(tx))
    telling_beside = threading.Thread(target=outbox.deliver_outbox, args=(office.parts,))
    with world.database.transaction() as tx:
        collected = update(NoticeAddress).where(NoticeAddress.person_id == owner.id).values(digest_at=None)
        tx.execute(collected)
        tx.execute(update(Delivery).where(Delivery.person_id == owner.id).values(state="collected"))
        telling_beside.start()
        telling_beside.join(0.3)
    telling_beside.join(10)
    assert [item.state for item in office.deliveries(owner)] == ["collected", "digest"]
    with world.database.transaction() as tx:
        assert tx.get_one(NoticeAddress, owner.id).digest_at is not None, "it would wait for ever"


def test_unmailed_notice_is_in_the_portal(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    to = office.address(owner)
    choose(office, owner, to_decide="off")
    asks(world, guest, dataset)
    office.rounds()
    assert not office.server.to(to)
    with world.database.transaction() as tx:
        [item] = choices.list_notices(tx, owner.caller, Window()).items
        assert choices.unread(tx, owner.id) == 1
        choices.mark_read(tx, owner.caller, clock(tx), up_to=item.id)
        assert choices.unread(tx, owner.id) == 0


def test_emergency_notices_cannot_be_turned_off(office: Office) -> None:
    signed, to = boss(office)
    for choice in ("off", "digest"):
        with pytest.raises(Invalid):
            choose(office, signed, emergency=choice)
    # Not even by a row that something else wrote.
    with office.world.admin("guestkey") as connection:
        connection.execute("INSERT INTO guestkey.notice_choice VALUES (%s, 'emergency', 'off')", (signed.id,))
    alarm(office.world)
    office.rounds()
    assert len(office.server.to(to)) == 1


def test_topics_of_other_roles_cannot_be_chosen(office: Office) -> None:
    world = office.world
    guest = world.person(world.vendor())
    for wanted in ({"joins": "off"}, {"nothing": "off"}, {"own_requests": "later"}):
        with pytest.raises(Invalid):
            choose(office, guest, 8, "UTC", **wanted)
    with pytest.raises(Invalid):
        choose(office, guest, zone="Mars/Olympus")
    with pytest.raises(Invalid):
        choose(office, guest, hour=24)
    with world.database.transaction() as tx, pytest.raises(Forbidden):
        choices.preferences(tx, world.service(world.vendor()).caller)


def test_digest_without_a_mail_server_is_not_kept(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    office.address(owner)
    choose(office, owner, to_decide="digest")
    asks(world, guest, dataset)
    outbox.deliver_outbox(world.ender)
    assert [item.state for item in office.deliveries(owner)] == ["portal"]


@pytest.mark.parametrize(
    ("now", "hour", "zone", "due"),
    [
        ("2026-11-24T06:59:00", 8, "Europe/Berlin", "2026-11-24T07:00:00"),
        ("2026-11-24T07:00:00", 8, "Europe/Berlin", "2026-11-25T07:00:00"),
        ("2026-06-24T06:30:00", 8, "Europe/Berlin", "2026-06-25T06:00:00"),
        # The hour that the clocks skip comes as the one after.
        ("2026-03-28T12:00:00", 2, "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-11-24T23:00:00", 0, "Pacific/Kiritimati", "2026-11-25T10:00:00"),
    ],
)
def test_digest_hour_follows_the_time_zone(now: str, hour: int, zone: str, due: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert next_digest(at, hour, zone) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_repeated_requests_cannot_flood_a_mailbox(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "MAILS_AN_HOUR", 4)
    world = office.world
    owner, guest, dataset = scene(world)
    to = office.address(owner)
    with world.database.transaction() as tx:
        request = asks(world, guest, dataset)
        for _ in range(digests.MAILS_AN_HOUR + 5):
            audit.record(tx, "request.made", actor=guest.caller.subject, subject=request.id, now=clock(tx))
    office.rounds()
    states = [item.state for item in office.deliveries(owner)]
    assert len(office.server.to(to)) == digests.MAILS_AN_HOUR == states.count("delivered")
    assert states.count("digest") == 6


def test_old_notices_are_deleted(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    asks(world, guest, dataset)
    office.rounds()
    outbox.delete_older(office.parts, timedelta(days=90))
    assert office.deliveries(owner)
    outbox.delete_older(office.parts, timedelta(0))
    assert not office.deliveries(owner)
