"""Single-use links: to join a party through a source, and to enrol a first second factor.

And what every admin must see wherever they look first: that the glass was broken, and by which invitation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, false, func, select, true, update

from broker.base.database import Transaction, one_at_a_time
from broker.base.errors import Conflict, Forbidden, Invalid, NotFound
from broker.base.ids import is_id, new_id
from broker.base.paging import Page, Window, page
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Filter, Noun
from broker.identity.permissions import is_lead, looks_after_people, require_looks_after_people, sees_everything
from broker.identity.secret_tokens import MOST_CHARACTERS, digest, fresh_token
from broker.log import audit
from broker.models import Event, Invitation, Passkey, Person, Session, SignInSource, TotpFactor
from broker.runtime.parts import Parts

ENROLMENT_WINDOW = timedelta(minutes=15)
SHOWN_FOR = timedelta(days=7)
_SENTENCES = {
    "recovery.begun": "`guestkey recover` created an admin invitation on the server.",
    "recovery.used": "Someone used a recovery invitation and is an admin for an hour.",
}
_MOST = 20


def unused(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """The condition that somebody could still use a link."""
    return and_(Invitation.redeemed_at.is_(None), Invitation.expires_at > now)


def _seen(caller: Caller) -> ColumnElement[bool]:
    if sees_everything(caller):
        return true()
    return Invitation.vendor_id == caller.vendor_id if is_lead(caller, caller.vendor_id) else false()


def _check(_: Transaction, caller: Caller) -> None:
    if not looks_after_people(caller):
        raise Forbidden("Only admins and a vendor's lead can see invitations.")


INVITATIONS = Noun(
    "invitation",
    "invitations",
    "in",
    Invitation,
    about="Single-use invitation links.",
    display=Display(
        columns="id, for=label, purpose, vendor, expires=expires_at@",
        none="No unused links.",
    ),
    seen=_seen,
    check=_check,
    called=Invitation.label,
    filters=(
        Filter(
            "state",
            Literal["unused"],
            lambda *_: unused(func.clock_timestamp()),
            "`unused`: whose link still works.",
        ),
    ),
    events={
        "invitation.ended": "{who} ended the unused invitation {whom}.",
        "invitation.made": "{who} invited {whom}.",
    },
)


def invite_to_join(
    tx: Transaction,
    caller: Caller,
    source_id: str,
    label: str,
    lifetime: int,
    now: datetime,
    *,
    meant_for: str = "",
    team_id: str | None = None,
) -> tuple[Invitation, str]:
    """Invite somebody to join the party a source stands for. Returns the invitation and its token, shown once.

    Args:
        meant_for: the inviter's own note of who it is, by which the invitation is found again (`invited`).
        team_id: the team they join once confirmed; whether the caller may fill it is checked by the caller.

    Raises:
        Forbidden: the caller is neither an admin nor a lead of that vendor.
        NotFound: there is no such source for the caller.
    """
    source = usable_source(tx, caller, source_id)
    return _make(tx, caller.subject, now, lifetime, label, source, purpose="join", meant_for=meant_for, team_id=team_id)


def usable_source(tx: Transaction, caller: Caller, source_id: str) -> SignInSource:
    """The source, if the caller may invite through it.

    Raises:
        Forbidden, NotFound: as for `invite_to_join`.
    """
    source = tx.get(SignInSource, source_id) if is_id(source_id) else None
    if not (caller.is_admin or (source is not None and is_lead(caller, source.vendor_id))):
        raise Forbidden("Only an admin, or a lead for people of their own vendor, can invite people.")
    if source is None or source.status != "active":
        raise NotFound("There is no such sign-in source.")
    return source


def invited(tx: Transaction, source_id: str, meant_for: str) -> Invitation | None:
    """The newest invitation through this source meant for the same; until commit nobody makes another.

    Two files sent at once would each miss the other's invitation.
    """
    one_at_a_time(tx, f"invitation {source_id} {meant_for}")
    same = (Invitation.source_id == source_id, Invitation.meant_for == meant_for, Invitation.meant_for != "")
    return tx.scalars(select(Invitation).where(*same).order_by(Invitation.id.desc()).limit(1)).one_or_none()


def end_unused(tx: Transaction, caller: Caller, invitation_id: str, now: datetime) -> Invitation:
    """Make the link of one invitation worthless before somebody uses it.

    Raises:
        NotFound: there is none of that id that the caller may see.
        Forbidden: the caller is neither an admin nor a lead of that vendor.
        Conflict: it was used, or is over.
    """
    found = INVITATIONS.one(tx, caller, invitation_id)
    if not caller.is_admin and "lead" not in caller.roles:
        raise Forbidden("Only an admin or the vendor's lead can end an invitation.")
    if not end(tx, caller, found, now):
        raise Conflict(
            "This link was used or has expired.", advice="If someone joined with it, you can suspend them under People."
        )
    tx.refresh(found)
    return found


def end(tx: Transaction, caller: Caller, invitation: Invitation, now: datetime) -> bool:
    """Make a link that nobody used worthless. Returns whether it was one."""
    ended = update(Invitation).where(Invitation.id == invitation.id, unused(now)).values(expires_at=now)
    if tx.scalar(ended.returning(Invitation.id)) is None:
        return False
    audit.record(tx, "invitation.ended", actor=caller.subject, subject=invitation.id, now=now)
    return True


def invite_admin(
    tx: Transaction, source: SignInSource, lifetime: int, now: datetime, *, label: str, role_until: datetime | None
) -> str:
    """Invite an admin from the server itself (`guestkey bootstrap`, `guestkey recover`). Returns the token."""
    role = {"org_role": "admin", "role_until": role_until}
    return _make(tx, audit.SYSTEM, now, lifetime, label, source, purpose="join", **role)[1]


def invite_to_enrol(
    tx: Transaction, actor: str, person_id: str, lifetime: int, now: datetime
) -> tuple[Invitation, str]:
    """A one-time invitation for a person without a second factor to enrol the first.

    Raises:
        NotFound: there is no such person.
        Conflict: the person has a factor; replacing it takes that factor, or two admins.
    """
    person = tx.get(Person, person_id)
    if person is None or person.status != "active":
        raise NotFound("There is no such active person.")
    if has_factor(tx, person_id):
        raise Conflict(
            "This person already has a second factor.", advice="Two admins can reset it: propose `reset-factor`."
        )
    return _make(tx, actor, now, lifetime, purpose="enrol_factor", person_id=person_id)


def pending(tx: Transaction, token: str, purpose: str, now: datetime) -> Invitation:
    """The invitation behind a link, redeemed or not, if it has not expired.

    Raises:
        NotFound: there is none.
    """
    found = None
    if 0 < len(token) <= MOST_CHARACTERS:
        valid = (Invitation.token_hash == digest(token), Invitation.purpose == purpose, Invitation.expires_at > now)
        found = tx.scalars(select(Invitation).where(*valid)).one_or_none()
    if found is None:
        raise NotFound(
            "This link is no longer valid.", advice="Ask the person who sent it for a new one.", code="link_invalid"
        )
    return found


def labels(tx: Transaction, people: Collection[str]) -> dict[str, str]:
    """Whom each invitation was meant for, by the person who joined with it: what confirming them is about."""
    joined = (Invitation.redeemed_by.in_(people), Invitation.purpose == "join")
    query = select(Invitation.redeemed_by, Invitation.label).where(*joined)
    return {row.redeemed_by: row.label for row in tx.execute(query.order_by(Invitation.redeemed_at))}


def list_unused(tx: Transaction, caller: Caller, window: Window, now: datetime) -> Page[Invitation]:
    """The joining links the caller sees that nobody has used yet, newest first."""
    query = INVITATIONS.query(tx, caller).where(Invitation.purpose == "join", unused(now))
    return page(tx, query, Invitation.id, window)


def source_choices(tx: Transaction, caller: Caller) -> list[tuple[str, str]]:
    """The sources the caller may invite through, id and name: an admin all, a lead those of the own vendor.

    Raises:
        Forbidden: for anybody else.
    """
    require_looks_after_people(caller)
    query = select(SignInSource.id, SignInSource.name).where(SignInSource.status == "active")
    if not caller.is_admin:
        query = query.where(SignInSource.vendor_id == caller.vendor_id)
    return [(row.id, row.name) for row in tx.execute(query.order_by(SignInSource.name))]


def redeem_join(tx: Transaction, invitation: Invitation, person: Person, now: datetime) -> None:
    """Use up a joining invitation, once.

    Raises:
        Conflict: somebody used it before.
    """
    # By the clock of this very moment: whoever ended the link meanwhile did so after `now` was read.
    used = update(Invitation).where(Invitation.id == invitation.id, unused(func.clock_timestamp()))
    used = used.values(redeemed_at=now, redeemed_by=person.id)
    if tx.scalar(used.returning(Invitation.id)) is None:
        raise Conflict("This invitation has been used.", advice="Ask for a new one.", code="link_used")


def open_enrolment(tx: Transaction, token: str, caller: Caller, now: datetime) -> None:
    """Let this session enrol a first factor, by an enrolment invitation made for this very person; once.

    Raises:
        NotFound: the link is not valid.
        Conflict: it was used, or the person has a factor.
        Invalid: it was made for somebody else.
    """
    invitation = pending(tx, token, "enrol_factor", now)
    if invitation.person_id != caller.id:
        raise Invalid("This link is for someone else.", advice="Sign in as the person it was sent to.")
    if has_factor(tx, caller.id):
        raise Conflict("You already have a second factor.")
    redeem_join(tx, invitation, tx.get_one(Person, caller.id), now)
    allow_enrolment(tx, caller.holder_id, now + ENROLMENT_WINDOW)
    audit.record(tx, "factor.enrolment_opened", actor=caller.subject, subject=caller.id, now=now)


def allow_enrolment(tx: Transaction, session_id: str, until: datetime) -> None:
    """Let one session enrol a factor until then."""
    tx.execute(update(Session).where(Session.id == session_id).values(enrolment_allowed_until=until))


def has_factor(tx: Transaction, person_id: str) -> bool:
    """Whether the person has a confirmed second factor."""
    totp = select(TotpFactor.person_id).where(TotpFactor.person_id == person_id, TotpFactor.confirmed_at.is_not(None))
    passkey = select(Passkey.person_id).where(Passkey.person_id == person_id)
    return tx.execute(totp.union_all(passkey).limit(1)).first() is not None


def _make(
    tx: Transaction,
    actor: str,
    now: datetime,
    lifetime: int,
    label: str = "",
    source: SignInSource | None = None,
    **columns: Any,
) -> tuple[Invitation, str]:
    token = fresh_token()
    invitation = Invitation(
        id=new_id("in"),
        token_hash=digest(token),
        source_id=source.id if source else None,
        vendor_id=source.vendor_id if source else None,
        label=label[:200],
        created_by=actor,
        expires_at=now + timedelta(seconds=lifetime),
        **columns,
    )
    tx.add(invitation)
    tx.flush()
    details = {
        "purpose": invitation.purpose,
        "source": invitation.source_id,
        "person": invitation.person_id,
        "role": invitation.org_role,
        "team": invitation.team_id,
    }
    personal = {"label": label}
    audit.record(tx, "invitation.made", actor=actor, subject=invitation.id, now=now, details=details, personal=personal)
    return invitation, token


def join_link(parts: Parts, token: str) -> str:
    """The link a joining invitation is sent as."""
    return f"{str(parts.settings.public_url).rstrip('/')}/join/{token}"


def enrol_link(parts: Parts, token: str) -> str:
    """The link an enrolment invitation is sent as."""
    return f"{str(parts.settings.public_url).rstrip('/')}/enrol/{token}"


@dataclass(frozen=True, slots=True)
class RecoveryNotice:
    """One of them; `subject` is the event's."""

    at: datetime
    kind: str
    subject: str
    sentence: str


def recovery_notices(tx: Transaction, caller: Caller, now: datetime) -> list[RecoveryNotice]:
    """The notices of the last days, newest first; for admins and auditors, nobody else has any."""
    if not (caller.is_admin or caller.is_auditor):
        return []
    query = select(Event.at, Event.kind, Event.subject).where(Event.kind.in_(_SENTENCES), Event.at > now - SHOWN_FOR)
    rows = tx.execute(query.order_by(Event.number.desc()).limit(_MOST))
    return [RecoveryNotice(row.at, row.kind, row.subject, _SENTENCES[row.kind]) for row in rows]
