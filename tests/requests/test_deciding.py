"""Who decides about a request, asked of the records: nobody about what is in a way their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.errors import Conflict, FactorNeeded, Forbidden, GuestkeyError, NotFound
from broker.base.ids import new_id
from broker.gate.explain import simulate
from broker.leases import holdings
from broker.log import audit
from broker.models import Dataset, Request, Slice, Team
from broker.registry import proposals
from broker.registry.approvers import not_decider, why_not
from broker.requests import approving
from broker.requests.requests import conclude
from tests.support.records import dataset_on_record, guest_on_record
from tests.support.world import Signed, World


def request_of(world: World, signed: Signed, dataset: Dataset, **changes: Any) -> Request:
    """A request that waits."""
    values: dict[str, Any] = {
        "id": new_id("rq"),
        "person_id": signed.id,
        "dataset_id": dataset.id,
        "role": "annotator",
        "slice_name": "deidentified",
        "purpose": "labelling",
        "period": 86400,
        "state": "pending",
        "lapses_at": world.now() + timedelta(days=1),
    }
    made: Request = world.add(Request(**(values | changes)))
    return made


def code(error: GuestkeyError | None) -> str | None:
    """The code of a refusal; None where somebody may decide."""
    return error.code if error else None


def may_decide(world: World, signed: Signed, dataset: Dataset, role: str = "annotator") -> str | None:
    """Why somebody has no say about who holds a role, as a code."""
    with world.database.transaction() as tx:
        return code(not_decider(tx, signed.caller, dataset.id, role))


def test_without_an_owner_an_admin_decides_and_nobody_else(world: World) -> None:
    dataset = dataset_on_record(world)
    assert may_decide(world, world.person(roles=("admin",)), dataset) is None
    for other in (world.person(), world.person(roles=("auditor",)), world.person(world.vendor(), roles=("admin",))):
        assert may_decide(world, other, dataset) == "forbidden"


def test_an_owner_of_a_vendor_decides_nothing(world: World) -> None:
    vendor = world.vendor()
    owner = world.person(vendor)
    assert may_decide(world, owner, dataset_on_record(world, vendor, owner=owner)) == "forbidden"


def test_admin_who_made_the_dataset_what_it_is_does_not_decide(world: World) -> None:
    admin, owner = world.person(roles=("admin",)), world.person(status="suspended")
    added, bound, labelled, orphaned = (dataset_on_record(world, owner=owner) for _ in range(4))
    assert may_decide(world, admin, added) is None
    with world.database.transaction() as tx:
        now = world.now()
        audit.record(tx, "dataset.added", actor=admin.caller.subject, subject=added.id, now=now)
    world.change(Slice, world.slice_id(bound), bound_by=admin.id)
    world.change(Dataset, labelled.id, labelled_by=[admin.id])
    for dataset in (added, bound, labelled):
        assert may_decide(world, admin, dataset) == "self_decision"
    with world.database.transaction() as tx:
        audit.record(tx, "person.suspended", actor=admin.caller.subject, subject=owner.id, now=world.now())
    assert may_decide(world, admin, orphaned) == "self_decision"
    assert may_decide(world, world.person(roles=("admin",)), orphaned) is None


def test_nobody_decides_about_what_they_asked_or_what_was_asked_for_them(world: World) -> None:
    asker, meant, owner = world.person(), world.person(), world.person()
    own = dataset_on_record(world, owner=owner)
    for found, decides in (
        (request_of(world, asker, own), None),
        (request_of(world, owner, own), "self_decision"),
        (request_of(world, asker, own, for_person_id=owner.id), "self_decision"),
        (request_of(world, asker, own, for_person_id=meant.id), None),
    ):
        with world.database.transaction() as tx:
            assert code(why_not(tx, owner.caller, found)) == decides


@pytest.mark.parametrize("state", ["approved", "refused", "withdrawn", "lapsed"])
def test_what_was_decided_is_not_decided_again(world: World, state: str) -> None:
    owner = world.person()
    found = request_of(world, world.person(), dataset_on_record(world, owner=owner), state=state)
    with pytest.raises(Conflict), world.database.transaction() as tx:
        conclude(tx, owner.caller, found, "approved", "", world.now())


def test_a_grant_ends_with_the_retention_at_the_latest(world: World) -> None:
    vendor, owner = world.vendor(), world.person()
    dataset = dataset_on_record(world, vendor, owner=owner)
    soon = world.now() + timedelta(hours=1)
    world.change(Dataset, dataset.id, retention_until=soon)
    found = request_of(world, world.person(vendor), dataset)
    with world.database.transaction() as tx:
        grant = approving.approve(world.parts, tx, owner.caller, found.id, approving.Narrowing(), world.now())
        assert grant.ends_at == soon


def test_a_grant_ends_when_the_request_says_however_late_it_is_approved(world: World) -> None:
    vendor, owner = world.vendor(), world.person()
    until = world.now() + timedelta(hours=1)
    found = request_of(world, world.person(vendor), dataset_on_record(world, vendor, owner=owner), until=until)
    with world.database.transaction() as tx:
        grant = approving.approve(world.parts, tx, owner.caller, found.id, approving.Narrowing(), world.now())
        assert grant.ends_at == until


def test_nobody_joins_a_team_while_its_grant_is_approved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor, owner = world.vendor(), world.person()
    lead = world.person(vendor, roles=("lead",))
    team, dataset = world.team(vendor, world.person(vendor)), dataset_on_record(world, vendor, owner=owner)
    found = request_of(world, lead, dataset, team_id=team.id)

    def meanwhile(tx: Transaction, *arguments: Any) -> object:
        with pytest.raises(Conflict, match="under way"), world.database.transaction() as other:
            other.execute(select(Team).where(Team.id == team.id).with_for_update(nowait=True)).all()
        return simulate(tx, *arguments)

    monkeypatch.setattr(approving, "simulate", meanwhile)
    with world.database.transaction() as tx:
        grant = approving.approve(world.parts, tx, owner.caller, found.id, approving.Narrowing(), world.now())
    assert grant.team_id == team.id


def test_grants_and_leases_of_others_read_like_none(world: World) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    other = world.person(world.vendor(), roles=("lead",))
    with world.database.transaction() as tx:
        assert holdings.grant(tx, signed.caller, grant.id).id == grant.id
        assert holdings.lease(tx, signed.caller, lease.id).id == lease.id
        with pytest.raises(NotFound):
            holdings.grant(tx, other.caller, grant.id)
        with pytest.raises(NotFound):
            holdings.lease(tx, other.caller, lease.id)


def test_an_auditor_sees_grants_and_leases_and_ends_none(world: World) -> None:
    signed, dataset, grant = guest_on_record(world)
    lease = world.issue(signed, dataset, kind="token").lease
    auditor, colleague = world.person(roles=("auditor",)).caller, world.person().caller
    for end, id_ in ((holdings.revoke_grant, grant.id), (holdings.revoke_lease, lease.id)):
        with pytest.raises(Forbidden), world.database.transaction() as tx:
            end(tx, auditor, id_, "a reason", world.now())
        with pytest.raises(NotFound), world.database.transaction() as tx:
            end(tx, colleague, id_, "a reason", world.now())
    assert world.lease(lease.id).state == "active"


@pytest.mark.parametrize("age", [None, proposals.APPROVER_FACTOR_AGE + 5])
def test_agreeing_takes_a_fresh_factor_and_another_admin(world: World, age: int | None) -> None:
    first, second = world.person(roles=("admin",)), world.person(roles=("admin",), factor_age=age)
    subject = world.person()
    with world.database.transaction() as tx:
        made = proposals.propose(tx, "give_role", subject.id, {"role": "auditor"}, first.caller, world.now()).id
    with pytest.raises(FactorNeeded), world.database.transaction() as tx:
        proposals.approve(tx, made, second.caller, world.now(), {})
    with pytest.raises(Forbidden) as alone, world.database.transaction() as tx:
        proposals.approve(tx, made, first.caller, world.now(), {})
    assert alone.value.code == "self_decision"
