"""Acts that need two people: one proposes, another approves, and only then, in that transaction, they happen.

Both are admins. For what concerns datasets (`OWNER_ACTS`), their owner is as good as an admin;
docs/who-may-open-what.md lists every act.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select, true

from broker.base import canonical
from broker.base.database import Transaction, one_at_a_time
from broker.base.errors import Conflict, FactorNeeded, Forbidden, Invalid, NotFound
from broker.base.ids import is_id, new_id
from broker.base.paging import Page, Window, page
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Menu, Noun
from broker.identity.permissions import everything_or_nothing, sees_everything
from broker.log import audit
from broker.models import PROPOSAL_ACTS, Dataset, Person, Proposal, RoleHeld

LIFETIME = timedelta(days=1)
# Agreeing is worth as much as the act itself, so it asks for the factor anew; in seconds.
APPROVER_FACTOR_AGE = 900
# Acts about datasets: `details["datasets"]` holds their ids. Whoever proposes one was checked where it is made.
OWNER_ACTS = frozenset({"change_dataset", "add_slice", "rotate_secret", "add_member"})
# What carries out an act once it is approved: two people stand in the proposal by then.
Performer = Callable[[Transaction, Proposal, datetime], None]


def _owned_by(caller: Caller) -> ColumnElement[bool]:
    """The condition that a dataset is the caller's, a person of the organisation."""
    inside = caller.kind == "person" and caller.vendor_id is None
    return and_(true() if inside else false(), Dataset.owner_id == caller.id)


def _seen(caller: Caller) -> ColumnElement[bool]:
    mine = select(Dataset.id).where(_owned_by(caller), Proposal.details["datasets"].has_key(Dataset.id)).exists()
    return true() if sees_everything(caller) else mine


def _check(tx: Transaction, caller: Caller) -> None:
    if not sees_everything(caller) and not tx.execute(select(Dataset.id).where(_owned_by(caller)).limit(1)).first():
        raise Forbidden("Only admins, auditors and owners can see this.", advice="Ask an admin of the organisation.")


PROPOSALS = Noun(
    "proposal",
    "proposals",
    "pr",
    Proposal,
    about="Changes that need a second admin.",
    menu=Menu("Proposals", lambda caller: caller.is_admin),
    display=Display(
        columns="id!, state, act, about=subject!, proposed by=proposed_by!, lapses=lapses_at@",
        none="No open proposals.",
        details=(
            "id, state, act, about=subject, details, proposed by=proposed_by, proposed=created_at@, "
            "lapses=lapses_at@, decided by=decided_by, reason"
        ),
    ),
    seen=_seen,
    named_to=everything_or_nothing,
    check=_check,
    called="“" + func.replace(Proposal.act, "_", " ") + "”",
    filters=(Filter("state", Literal["pending", "approved", "refused", "lapsed"], Proposal.state),),
    plain=("refused",),
    events={
        "proposal.approved": "{who} approved the proposal {whom}; it was carried out.",
        "proposal.lapsed": "{who} let the proposal {whom} lapse: no one decided in time.",
        "proposal.made": "{who} proposed {whom}, which needs a second admin.",
    },
)


def list_proposals(
    tx: Transaction, caller: Caller, window: Window, now: datetime, *, decided: bool = False
) -> Page[Proposal]:
    """Those that wait for a second person, or those that no longer do."""
    waits = (Proposal.state == "pending") & (Proposal.lapses_at > now)
    return page(tx, PROPOSALS.query(tx, caller).where(~waits if decided else waits), Proposal.id, window)


def propose(
    tx: Transaction,
    act: str,
    subject: str,
    details: Mapping[str, Any],
    caller: Caller,
    now: datetime,
    *,
    lifetime: timedelta = LIFETIME,
) -> Proposal:
    """Put an act before a second admin.

    Args:
        subject: the id of what it is done to; nobody proposes or approves acts about themselves.
        details: what the performer needs, as JSON; secrets in it are wrapped.

    Raises:
        Forbidden: the caller is no admin, and the act is none of `OWNER_ACTS`.
        Conflict: the act is about the caller, or the very same waits already.
    """
    if act not in PROPOSAL_ACTS:
        raise Invalid("There is no such action.", field="/act")
    if not caller.is_admin and act not in OWNER_ACTS:
        raise Forbidden("Only an admin can propose this.")
    _check_not_about(caller, subject, details)
    if act in OWNER_ACTS:
        # A secret is shown to who asked for it, so everybody asks for themselves.
        _check_not_waiting(tx, act, subject, details, now, by=caller.id if act == "rotate_secret" else None)
    proposal = Proposal(
        id=new_id("pr"),
        act=act,
        subject=subject,
        details=dict(details),
        state="pending",
        proposed_by=caller.id,
        created_at=now,
        lapses_at=now + lifetime,
    )
    tx.add(proposal)
    tx.flush()
    _record(tx, "proposal.made", proposal, caller, now)
    return proposal


def approve(
    tx: Transaction, proposal_id: str, caller: Caller, now: datetime, performers: Mapping[str, Performer]
) -> Proposal:
    """Approve an act and carry it out.

    Raises:
        NotFound: there is no such proposal.
        Conflict: it was decided or has lapsed, or is about the caller.
        Forbidden: the caller may not decide it or proposed it, or whoever did may not propose it any more.
        FactorNeeded: the caller's second factor is not fresh.
    """
    proposal = _pending(tx, proposal_id, caller, now)
    age = None if caller.factor_at is None else (now - caller.factor_at).total_seconds()
    if age is None or age > APPROVER_FACTOR_AGE:
        raise FactorNeeded(
            "Approving needs a fresh second factor.", max_age=APPROVER_FACTOR_AGE, enrolled=caller.factor_enrolled
        )
    _check_not_about(caller, proposal.subject, proposal.details)
    if proposal.proposed_by == caller.id:
        raise Forbidden(f"You proposed this: {who_else(proposal.act)} must approve it.", code="self_decision")
    _check_still_entitled(tx, proposal, caller.id, now)
    proposal.state, proposal.decided_by, proposal.decided_at = "approved", caller.id, now
    tx.flush()
    _record(tx, "proposal.approved", proposal, caller, now)
    performers[proposal.act](tx, proposal, now)
    return proposal


def refuse(tx: Transaction, proposal_id: str, caller: Caller, reason: str, now: datetime) -> Proposal:
    """Refuse an act, or withdraw one's own.

    Raises:
        NotFound, Conflict, Forbidden: as for `approve`, except that the proposer may.
    """
    proposal = _pending(tx, proposal_id, caller, now)
    proposal.state, proposal.decided_by, proposal.decided_at = "refused", caller.id, now
    proposal.reason = reason
    tx.flush()
    _record(tx, "proposal.refused", proposal, caller, now)
    return proposal


def may_decide(tx: Transaction, proposal: Proposal, caller: Caller) -> bool:
    """Whether the caller could be the second: an admin, or the owner of every dataset it concerns."""
    about = {proposal.subject, proposal.details.get("owner_id"), proposal.proposed_by}
    return caller.id not in about and (caller.is_admin or _owns(tx, proposal, caller.id))


def others_to_decide(tx: Transaction, proposal: Proposal, now: datetime) -> bool:
    """Whether somebody beside the proposer could approve it now."""
    about = {proposal.subject, proposal.details.get("owner_id"), proposal.proposed_by}
    people = set(tx.scalars(_admins(now))) | set(owners_of(tx, proposal))
    return bool(people - about)


def active_admins(tx: Transaction, now: datetime) -> set[str]:
    """The ids of everybody who is an active admin now."""
    return set(tx.scalars(_admins(now)))


def other_admins(tx: Transaction, person_id: str, now: datetime) -> bool:
    """Whether anybody else is an active admin now."""
    return tx.execute(_admins(now).where(Person.id != person_id).limit(1)).first() is not None


def owners_of(tx: Transaction, proposal: Proposal) -> list[str]:
    """The active owner of every dataset it concerns, if that is one person for all of them."""
    wanted = list(proposal.details.get("datasets", [])) if proposal.act in OWNER_ACTS else []
    query = select(Dataset.id, Person.id).join(Person, Person.id == Dataset.owner_id)
    query = query.where(Dataset.id.in_(wanted), Person.status == "active", Person.vendor_id.is_(None))
    owners = dict(tx.execute(query).all())
    return list(set(owners.values())) if owners.keys() == set(wanted) and len(set(owners.values())) == 1 else []


def owners_concerned(tx: Transaction, proposal: Proposal) -> list[str]:
    """Every active owner of a dataset that it concerns, whether or not their word alone is enough."""
    if proposal.act not in OWNER_ACTS:
        return []
    query = select(Person.id).join(Dataset, Dataset.owner_id == Person.id)
    concerned = Dataset.id.in_(proposal.details.get("datasets", []))
    return sorted(set(tx.scalars(query.where(concerned, Person.status == "active"))))


def who_else(act: str) -> str:
    """Who must agree to an act, in words."""
    return "the dataset's owner or another admin" if act in OWNER_ACTS else "another admin"


def waiting_on(tx: Transaction, subjects: Sequence[str], now: datetime) -> list[Proposal]:
    """What waits for a second person about these datasets, services or teams, oldest first."""
    waits = (Proposal.state == "pending", Proposal.lapses_at > now, Proposal.act.in_(OWNER_ACTS))
    return list(tx.scalars(select(Proposal).where(Proposal.subject.in_(subjects), *waits).order_by(Proposal.id)))


def _pending(tx: Transaction, proposal_id: str, caller: Caller, now: datetime) -> Proposal:
    query = select(Proposal).where(Proposal.id == proposal_id).with_for_update()
    proposal = tx.scalars(query).one_or_none() if is_id(proposal_id) else None
    concerned = proposal is not None and (caller.id == proposal.proposed_by or _owns(tx, proposal, caller.id))
    if not caller.is_admin and not concerned:
        raise Forbidden("Only an admin can decide this, or the owner of the dataset.")
    if proposal is None:
        raise NotFound("There is no such proposal.")
    if proposal.state != "pending" or proposal.lapses_at <= now:
        state = "lapsed" if proposal.state == "pending" else proposal.state
        raise Conflict(f"This proposal is {state}; it can no longer be decided.", advice="Propose it again.")
    return proposal


def _check_not_about(caller: Caller, subject: str, details: Mapping[str, Any]) -> None:
    if caller.id in (subject, details.get("owner_id")):
        raise Conflict("This is about you.", advice="Two other admins must do this.", code="self_decision")


def _check_not_waiting(
    tx: Transaction, act: str, subject: str, details: Mapping[str, Any], now: datetime, *, by: str | None
) -> None:
    one_at_a_time(tx, f"proposal {act} {subject}")
    same = select(Proposal.id).where(Proposal.state == "pending", Proposal.lapses_at > now)
    same = same.where(Proposal.act == act, Proposal.subject == subject, Proposal.details == dict(details))
    same = same.where(Proposal.proposed_by == by) if by else same
    if waiting := tx.execute(same).scalar():
        raise Conflict(
            "This has already been proposed and is waiting for a second person.",
            advice=f"Show it with `guestkey proposal show {waiting}`.",
            code="proposed_already",
        )


def _check_still_entitled(tx: Transaction, proposal: Proposal, approver_id: str, now: datetime) -> None:
    # Locked, so that neither can lose what entitles them, or be suspended, between this look and the act's commit.
    pair = (proposal.proposed_by, approver_id)
    entitled = set(tx.scalars(_admins(now).where(Person.id.in_(pair)).with_for_update(read=True)))
    if proposal.act in OWNER_ACTS:
        datasets = Dataset.id.in_(proposal.details.get("datasets", []))
        tx.execute(select(Dataset.id).where(datasets).with_for_update(read=True))
        active = select(Person.id).where(Person.id.in_(pair), Person.status == "active")
        active_ids = set(tx.scalars(active.with_for_update(read=True)))
        entitled |= {one for one in pair if one in active_ids and _owns(tx, proposal, one)}
        entitled |= active_ids & {proposal.proposed_by} & set(tx.scalars(_leads(proposal, now)))
    if len(entitled) != 2:
        raise Forbidden(
            "The person who proposed this is no longer allowed to.",
            advice="Refuse it, and propose it again if it is still needed.",
        )


def _admins(now: datetime) -> Select[str]:
    active = (Person.status == "active", Person.vendor_id.is_(None))
    admin = select(RoleHeld.person_id).join(Person, Person.id == RoleHeld.person_id)
    return admin.where(RoleHeld.role == "admin", role_held(now), *active)


def _leads(proposal: Proposal, now: datetime) -> Select[str]:
    """A vendor's leads, who may propose their own staff for a team of theirs."""
    lead = select(RoleHeld.person_id).join(Person, Person.id == RoleHeld.person_id)
    return lead.where(RoleHeld.role == "lead", role_held(now), Person.vendor_id == proposal.details.get("vendor"))


def role_held(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """The condition that a role is held at this moment."""
    return and_(RoleHeld.ended_at.is_(None), or_(RoleHeld.until.is_(None), RoleHeld.until > now))


def _owns(tx: Transaction, proposal: Proposal, person_id: str) -> bool:
    return person_id in owners_of(tx, proposal)


def _record(tx: Transaction, kind: str, proposal: Proposal, caller: Caller, now: datetime) -> None:
    details: Any = proposal.details
    # The digest fixes what was agreed to, without putting names or wrapped secrets into the log.
    digest = hashlib.sha256(canonical.dumps(details)).hexdigest()
    audit.record(
        tx,
        kind,
        actor=caller.subject,
        subject=proposal.id,
        now=now,
        details={"act": proposal.act, "on": proposal.subject, "proposed_by": proposal.proposed_by, "sha256": digest},
        personal={"reason": proposal.reason or ""},
    )
