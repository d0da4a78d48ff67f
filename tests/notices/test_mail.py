"""Notices by mail: from the cause's own transaction to a real mail server, whatever that server does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from broker.base.database import clock
from broker.base.ids import new_id
from broker.identity.sign_in_admission import remember_address
from broker.log import audit
from broker.log.audit import NOTICED
from broker.models import Dataset, Notice, Proposal, Request, Vendor
from broker.notices import digests, outbox
from broker.notices.delivery_retries import NoticeSender
from broker.notices.rendering import plain
from broker.notices.triggers import TRIGGERS
from broker.operator import bootstrap
from broker.registry import vendors
from broker.requests import approving, requests
from broker.requests.requests import NewRequest
from broker.revocation.ending import suspend_person
from tests.notices.conftest import Office
from tests.support.world import Signed, World

PARTS = ("telling", "digests", "mail", "lapsing", "tidying")


def asks(world: World, signed: Signed, dataset: Dataset, purpose: str = "labelling") -> Request:
    with world.database.transaction() as tx:
        new = NewRequest(dataset=dataset.slug, role="annotator", purpose=purpose, period=7 * 86400)
        return requests.ask(world.parts, tx, signed.caller, new, clock(tx))


def scene(world: World) -> tuple[Signed, Signed, Dataset]:
    """An owner, a vendor's engineer, and a dataset between them."""
    owner, vendor = world.person(name="Olga Owner"), world.vendor()
    return owner, world.person(vendor, name="Gita Guest"), world.dataset(vendor, owner=owner)


def test_every_notice_kind_has_recipients() -> None:
    assert set(TRIGGERS) == NOTICED | set(outbox.KINDS)


@pytest.mark.fast
def test_approver_gets_the_request_and_guest_the_decision(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    to_owner, to_guest = office.address(owner), office.address(guest)
    request = asks(world, guest, dataset, purpose="the purpose stays inside")
    office.rounds()
    [mail] = office.server.to(to_owner)
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    html = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert mail["Subject"] == "A request needs your decision: Trials"
    assert "Gita Guest of Vendor" in text and f"/requests/{request.id}" in text
    assert f'/requests/{request.id}"' in html
    assert "the purpose stays inside" not in mail.as_string()
    assert not office.server.to(to_guest)
    with world.database.transaction() as tx:
        approving.refuse(tx, owner.caller, request.id, "the reason stays inside", clock(tx))
    office.rounds()
    [told] = office.server.to(to_guest)
    assert told["Subject"] == "Your request was refused: Trials" and "the reason stays inside" not in told.as_string()
    [delivery] = office.deliveries(guest)
    assert delivery.state == "delivered" and told["Message-ID"].startswith(f"<{delivery.id}@")


def test_rolled_back_change_sends_no_notice(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    office.address(owner)
    with pytest.raises(RuntimeError), world.database.transaction() as tx:
        new = NewRequest(dataset=dataset.slug, role="annotator", purpose="x", period=86400)
        requests.ask(world.parts, tx, guest.caller, new, clock(tx))
        raise RuntimeError
    office.rounds()
    assert not office.deliveries(owner)


def test_withdrawn_request_sends_no_pending_notice(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    request = asks(world, guest, dataset)
    with world.database.transaction() as tx:
        requests.withdraw(tx, guest.caller, request.id, clock(tx))
    office.rounds()
    assert not office.deliveries(owner) and not office.deliveries(guest)


def test_without_an_owner_admins_are_notified_except_the_requester(office: Office) -> None:
    world = office.world
    vendor = world.vendor()
    guest, adder, admin = world.person(vendor), world.person(roles=("admin",)), world.person(roles=("admin",))
    dataset = world.dataset(vendor, register=False)
    with world.database.transaction() as tx:
        audit.record(tx, "dataset.added", actor=adder.caller.subject, subject=dataset.id, now=clock(tx))
    now = world.now()
    request = Request(
        id=new_id("rq"),
        person_id=guest.id,
        dataset_id=dataset.id,
        role="annotator",
        purpose="labelling",
        period=3600,
        lapses_at=now + timedelta(days=1),
    )
    world.add(request)
    with world.database.transaction() as tx:
        audit.record(tx, "request.made", actor=guest.caller.subject, subject=request.id, now=clock(tx))
    office.rounds()
    assert office.deliveries(admin) and not office.deliveries(adder)


def alarm(world: World, times: int = 1) -> None:
    """Something every admin is told of at once."""
    with world.database.transaction() as tx:
        for _ in range(times):
            audit.record(tx, "installation.opened", actor="system", subject="installation:1", now=clock(tx))


def boss(office: Office) -> tuple[Signed, str]:
    """An admin with an address."""
    signed = office.world.person(roles=("admin",), name="Ada Admin")
    return signed, office.address(signed)


def test_two_workers_send_each_mail_once(office: Office) -> None:
    _, to = boss(office)
    alarm(office.world, 6)
    threads = [threading.Thread(target=office.rounds) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(office.server.to(to)) == len({mail["Message-ID"] for mail in office.server.to(to)}) == 6


def test_suspended_person_gets_no_mail(office: Office) -> None:
    world = office.world
    signed, to = boss(office)
    alarm(world)
    outbox.deliver_outbox(office.parts)
    with world.database.transaction() as tx:
        suspend_person(tx, signed.id, world.person(roles=("admin",)).caller, "gone", clock(tx))
    office.rounds()
    assert not office.server.to(to) and office.deliveries(signed)[0].state == "given_up"


@pytest.mark.parametrize("act", [vendors.suspend_vendor, vendors.offboard_vendor])
def test_staff_of_a_suspended_vendor_get_no_mail(office: Office, act: Callable[..., list[str]]) -> None:
    world = office.world
    _, guest, dataset = scene(world)
    to, admin = office.address(guest), world.person(roles=("admin",))
    world.grant(dataset, guest)
    request = asks(world, guest, dataset)
    with world.database.transaction() as tx:
        audit.record(tx, "request.refused", actor="system", subject=request.id, now=clock(tx))
    outbox.deliver_outbox(office.parts)
    with world.database.transaction() as tx:
        act(tx, admin.caller, guest.caller.vendor_id, "it is over", clock(tx))
        audit.record(tx, "request.lapsed", actor="system", subject=request.id, now=clock(tx))
    office.rounds()
    states = [item.state for item in office.deliveries(guest)]
    assert states[0] == "given_up" and set(states[1:]) == {"portal"} and not office.server.to(to)


def test_emergency_recovery_notifies_every_admin(office: Office) -> None:
    world = office.world
    signed, to = boss(office)
    world.source(None)
    link = bootstrap.recover(world.parts)
    office.rounds()
    [mail] = office.server.to(to)
    assert "Emergency recovery" in mail["Subject"] and link.rpartition("/")[2] not in mail.as_string()
    assert office.deliveries(signed)[0].topic == "emergency"


def test_expiring_grant_sends_one_notice(office: Office) -> None:
    world = office.world
    _, guest, dataset = scene(world)
    to, now = office.address(guest), world.now()
    world.grant(dataset, guest, starts_at=now - timedelta(days=30), ends_at=now + timedelta(days=2))
    world.grant(dataset, guest, starts_at=now - timedelta(days=1), ends_at=now + timedelta(days=2.9))
    for _ in range(2):
        outbox.queue_expiring(office.parts)
        office.rounds()
    [mail] = office.server.to(to)
    assert mail["Subject"] == "Your access ends soon: Trials"


def test_undecided_request_sends_one_notice_before_it_lapses(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    proposer, other = (world.person(roles=("admin",)) for _ in range(2))
    request = asks(world, guest, dataset)
    now = world.now()
    proposal = Proposal(
        id=new_id("pr"),
        act="reset_factor",
        subject=guest.id,
        details={},
        proposed_by=proposer.id,
        created_at=now - timedelta(hours=20),
        lapses_at=now + timedelta(hours=4),
    )
    world.add(proposal)
    office.clear()
    outbox.queue_expiring(office.parts)
    office.rounds()
    assert not office.deliveries(guest) and not office.deliveries(owner), "most of its time is left"
    world.change(Request, request.id, created_at=now - timedelta(days=9), lapses_at=now + timedelta(days=2.9))
    for _ in range(2):
        outbox.queue_expiring(office.parts)
        office.rounds()
    [to_guest], [to_owner] = office.deliveries(guest), office.deliveries(owner)
    assert (to_guest.title, to_guest.topic) == ("Your request lapses soon: Trials", "own_requests")
    assert (to_owner.title, to_owner.topic) == ("A request lapses soon: Trials", "to_decide")
    for admin in (proposer, other):
        assert [item.title for item in office.deliveries(admin)] == [
            "A second admin is still needed: reset a second factor"
        ]


def test_no_expiry_notice_for_access_that_is_suspended(office: Office) -> None:
    world = office.world
    now = world.now()
    told = []
    for closed in (None, Vendor, Dataset):
        _, guest, dataset = scene(world)
        world.grant(dataset, guest, starts_at=now - timedelta(days=30), ends_at=now + timedelta(days=2))
        if closed is not None:
            world.change(closed, str(guest.caller.vendor_id) if closed is Vendor else dataset.id, status="suspended")
        told.append(guest)
    outbox.queue_expiring(office.parts)
    office.rounds()
    assert [len(office.deliveries(guest)) for guest in told] == [1, 0, 0]


def test_suspension_notifies_only_leads_of_the_vendor(office: Office) -> None:
    world = office.world
    vendor, other = world.vendor(), world.vendor()
    lead, foreign = world.person(vendor, roles=("lead",)), world.person(other, roles=("lead",))
    guest = world.person(vendor, name="Gita Guest")
    with world.database.transaction() as tx:
        suspend_person(tx, guest.id, world.person(roles=("admin",)).caller, "left", clock(tx))
    office.rounds()
    assert [item.title for item in office.deliveries(lead)] == ["Gita Guest was suspended"]
    assert not office.deliveries(foreign) and not office.deliveries(guest)


def test_hostile_names_are_sanitised_in_mails(office: Office) -> None:
    world = office.world
    owner, guest, dataset = scene(world)
    to = office.address(owner)
    name = "Eve\r\nBcc: all@example.org <img src=//evil.example/x> \u202ereversed\u0000 https://evil.example"
    with world.admin("guestkey") as connection:
        connection.execute("UPDATE guestkey.person SET name = %s WHERE id = %s", (name.replace("\0", ""), guest.id))
        title = "Trials\nBcc: <b>all</b>"
        connection.execute("UPDATE guestkey.dataset SET title = %s WHERE id = %s", (title, dataset.id))
    asks(world, guest, dataset)
    office.rounds()
    [mail] = office.server.to(to)
    said = mail.as_string() + mail["Subject"]
    assert mail["Bcc"] is None and "\n" not in mail["Subject"]
    assert not any(harm in said for harm in ("<img", "<b>", "\u202e", "evil.example", "//evil"))


@pytest.mark.parametrize(
    ("claims", "kept"),
    [
        ({"email": "ada@example.org", "email_verified": True}, "ada@example.org"),
        ({"email": "ada@example.org"}, ""),
        ({"email": "ada@example.org", "email_verified": "true"}, ""),
        ({"email": "a@example.org\r\nBcc: b@example.org", "email_verified": True}, ""),
        ({"email": "a@example.org,b@example.org", "email_verified": True}, ""),
        ({"email": "Ada <ada@example.org>", "email_verified": True}, ""),
        ({"email": ["ada@example.org"], "email_verified": True}, ""),
        ({"email": "ada", "email_verified": True}, ""),
        ({}, ""),
    ],
)
def test_only_a_verified_address_is_kept(office: Office, claims: dict[str, Any], kept: str) -> None:
    world = office.world
    signed = world.person()
    office.address(signed)
    with world.database.transaction() as tx:
        remember_address(tx, signed.id, claims)
    with world.admin("guestkey") as connection:
        row = connection.execute("SELECT address FROM guestkey.notice_address WHERE person_id = %s", (signed.id,))
        assert row.fetchone() == (kept,)


def test_names_keep_letters_of_all_scripts() -> None:
    assert plain("Zoë O'Brien-Łuk (HR) & 張") == "Zoë O'Brien-Łuk (HR) & 張"


def test_notice_that_cannot_be_rendered_is_given_up_without_delaying_others(office: Office) -> None:
    world = office.world
    _, to = boss(office)
    new, old = new_id("no"), new_id("no")
    for id_, attempts in ((new, 0), (old, 19)):
        world.add(Notice(id=id_, kind="request.made", actor="system", subject="rq_missing", attempts=attempts))
    alarm(world)
    office.rounds()
    assert len(office.server.to(to)) == 1
    with world.database.transaction() as tx:
        tried = [tx.get_one(Notice, id_) for id_ in (new, old)]
        tx.delete(tried[0])
    assert [(notice.attempts, notice.told_at is None) for notice in tried] == [(1, True), (20, False)]
    assert (world.events(new), world.events(old)) == ([], ["notice.given_up"])


def test_failing_part_of_notices_does_not_delay_mail_and_is_counted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, to = boss(office)
    alarm(office.world)

    def fails(*_: object) -> int:
        raise RuntimeError

    for module, name in ((outbox, "queue_expiring"), (outbox, "delete_older"), (digests, "collect")):
        monkeypatch.setattr(module, name, fails)
    counted = [REGISTRY.get_sample_value("guestkey_notice_faults_total", {"part": part}) or 0 for part in PARTS]
    NoticeSender(office.parts).round()
    assert len(office.server.to(to)) == 1
    now = [REGISTRY.get_sample_value("guestkey_notice_faults_total", {"part": part}) or 0 for part in PARTS]
    assert [after - before for after, before in zip(now, counted, strict=True)] == [0, 1, 0, 1, 1]
