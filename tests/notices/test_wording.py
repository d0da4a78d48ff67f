"""Every kind of notice in its own words, to whom it concerns, and with nothing in it that opens anything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import select

from broker.base.database import clock
from broker.base.ids import new_id
from broker.log import audit
from broker.log.audit import NOTICED
from broker.models import TOPICS, Offer, Proposal, Request, Slice
from broker.notices import outbox
from broker.revocation.ending import revoke_lease
from tests.notices.conftest import Office
from tests.notices.test_channels import bind
from tests.notices.test_mail import scene
from tests.support.world import Signed, World


@dataclass
class Everything:
    """One of each record a notice can be about, and who is concerned by it."""

    admin: Signed
    owner: Signed
    guest: Signed
    lead: Signed
    subjects: dict[str, str]
    secrets: list[str]


def everything(world: World) -> Everything:
    """Real records of every sort; the guest also holds a credential."""
    owner, guest, dataset = scene(world)
    vendor_id = guest.caller.vendor_id
    admin = world.person(roles=("admin",))
    lead = world.person(roles=("lead",))
    with world.admin("guestkey") as connection:
        connection.execute("UPDATE guestkey.person SET vendor_id = %s WHERE id = %s", (vendor_id, lead.id))
        joined = world.person(status="pending")
    grant, service, team = world.grant(dataset, guest), world.service(), world.team(world.vendor())
    with world.database.transaction() as tx:
        offer = tx.scalars(select(Offer.id).where(Offer.dataset_id == dataset.id)).first() or ""
    world.grant(dataset, service)
    world.grant(dataset, team)
    handed = world.issue(guest, dataset)
    now = world.now()
    request = world.add(
        Request(
            id=new_id("rq"),
            person_id=guest.id,
            dataset_id=dataset.id,
            role="annotator",
            purpose="purpose-canary",
            period=3600,
            lapses_at=now + timedelta(days=1),
        )
    )
    proposal = world.add(
        Proposal(
            id=new_id("pr"),
            act="reset_factor",
            subject=guest.id,
            details={"note": "details-canary"},
            proposed_by=admin.id,
            lapses_at=now + timedelta(days=1),
        )
    )
    subjects = {
        "request": request.id,
        "grant": grant.id,
        "lease": handed.lease.id,
        "proposal": proposal.id,
        "person": guest.id,
        "person.joined": joined.id,
        "dataset": dataset.id,
        "offer": offer,
        "slice": world.slice_id(dataset),
        "service": service.id,
        "team": team.id,
        "installation": "installation:1",
        "recovery": new_id("re"),
        "factor": guest.id,
        "recovery_code": guest.id,
        "recovery_codes": guest.id,
        "place": "postgres:data",
        "slice.changed": world.slice_id(dataset, "full"),
    }
    world.change(Slice, subjects["slice.changed"], state="changed")
    with world.database.transaction() as tx:
        revoke_lease(tx, handed.lease, guest.caller, "reason-canary", clock(tx))
    assert handed.values is not None
    secrets = [handed.values["password"], "purpose-canary", "details-canary", "reason-canary"]
    return Everything(admin, owner, guest, lead, subjects, secrets)


def test_every_notice_kind_renders_for_people_and_channels(office: Office) -> None:
    world = office.world
    made = everything(world)
    addresses = [office.address(who) for who in (made.admin, made.owner, made.guest, made.lead)]
    other = world.person(roles=("admin",))
    _, bound = bind(office, topics=list(TOPICS))
    with world.database.transaction() as tx:
        for kind in sorted(NOTICED):
            subject = made.subjects.get(kind) or made.subjects[kind.partition(".")[0]]
            audit.record(tx, kind, actor=other.caller.subject, subject=subject, now=clock(tx))
    office.rounds()
    told = {json.loads(body)["type"]: json.loads(body)["data"] for _, body in office.receiver.arrived}
    assert told.keys() == NOTICED
    assert all(data["title"] and data["text"] and "{" not in data["title"] + data["text"] for data in told.values())
    assert not [data for data in told.values() if "Your" in data["title"] and data["topic"] != "to_decide"]
    kinds = {who.id: {item.kind for item in office.deliveries(who)} for who in (made.guest, made.lead, made.owner)}
    assert kinds[made.guest.id] == {
        "factor.enrolled",
        "factor.removed",
        "factor.replaced",
        "factor.reset",
        "recovery_code.used",
        "recovery_codes.replaced",
        "grant.made",
        "grant.revoked",
        "person.confirmed",
        "request.approved",
        "request.lapsed",
        "request.refused",
        "request.withdrawn",
    }
    assert kinds[made.lead.id] == {"grant.made", "person.suspended"}
    assert kinds[made.owner.id] == {
        "dataset.changed",
        "dataset.resumed",
        "offer.made",
        "request.made",
        "request.reminded",
        "service.secret_rotated",
        "slice.added",
        "slice.changed",
        "team.member_added",
    }
    assert {item.kind for item in office.deliveries(made.admin)} == {
        "installation.closed",
        "installation.opened",
        "lease.revoke_failed",
        "lease.stray_ended",
        "lease.vanished",
        "person.joined",
        "place.silent",
        "proposal.approved",
        "proposal.lapsed",
        "proposal.made",
        "proposal.refused",
        "recovery.begun",
        "recovery.used",
    }
    mails = [mail for address in addresses for mail in office.server.to(address)]
    sent = "".join(str(mail.items()) + part.get_content() for mail in mails for part in mail.iter_parts())
    sent += "".join(body.decode() for _, body in office.receiver.arrived)
    assert sent and not [secret for secret in [*made.secrets, bound.secret] if secret in sent]
    # Only the portal's own pages are linked, and nothing that lets anybody in.
    assert "/join/" not in sent and "/enrol/" not in sent


def test_people_get_no_notice_of_their_own_actions(office: Office) -> None:
    world = office.world
    made = everything(world)
    with world.database.transaction() as tx:
        for kind in ("request.withdrawn", "grant.revoked"):
            subject = made.subjects[kind.partition(".")[0]]
            audit.record(tx, kind, actor=made.guest.caller.subject, subject=subject, now=clock(tx))
    office.rounds()
    assert not office.deliveries(made.guest)
    assert not NOTICED & set(outbox.KINDS)
