"""Who may come in: from the claims of a verified sign-in to a person here, joined or known, and a session.

No network and no HTTP: `broker.identity.login` brings the claims. Identity is issuer and subject, exactly; names
and addresses are shown and mailed to, never matched. A claim of another JSON type than the specification gives it
(OpenID Connect Core 1.0, section 5.1) is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction, clock, one_at_a_time
from broker.base.errors import NotSignedIn
from broker.base.ids import new_id
from broker.identity import invitations, sessions, sources
from broker.identity.faults import SignInRefused
from broker.log import audit
from broker.models import (
    Invitation,
    NoticeAddress,
    Person,
    PolicyInForce,
    RoleHeld,
    SignInAttempt,
    SignInSource,
    Suspension,
    Vendor,
)
from broker.outbound.smtp import address

log = structlog.get_logger(__name__)
BOOTSTRAP_ENROLMENT = timedelta(hours=1)
_LONGEST_NAME = 200
_LONGEST_ADDRESS = 320


@dataclass(frozen=True, slots=True)
class StartedSession:
    """A session begun: the cookie's value, whether the person waits, where they wanted to go, their source."""

    session_token: str = field(repr=False)
    pending: bool
    next_path: str
    source_id: str


@dataclass(frozen=True, slots=True)
class BrowserInfo:
    """What the browser says of itself; kept with the session."""

    address: str
    user_agent: str
    session_token: str = field(default="", repr=False)


def start_session_for(
    tx: Transaction,
    started_at: SignInSource,
    attempt: SignInAttempt,
    claims: Mapping[str, Any],
    visitor: BrowserInfo,
    *,
    lifetime: int,
) -> StartedSession:
    """Let somebody in.

    Args:
        started_at: the source they set out from; the claims say which one of the same issuer and client is theirs.
        claims: of a verified ID token.
        lifetime: the session's, in seconds.

    Raises:
        NotSignedIn: no source or two match, nobody here is that person, or they are suspended.
    """
    now = clock(tx)
    matching = [source for source in sources.siblings(tx, started_at) if sources.matches(source, claims)]
    if len(matching) != 1:
        raise _no_one_source(tx, started_at, claims, matching)
    source = matching[0]
    invitation = tx.get(Invitation, attempt.invitation_id) if attempt.invitation_id else None
    person, enrolment_until = _person(tx, source, invitation, claims, now)
    remember_address(tx, person.id, claims)
    factor_at = _provider_factor(source, attempt, claims, now)
    if factor_at is not None and source.vendor_id is None and not invitations.has_factor(tx, person.id):
        enrolment_until = now + invitations.ENROLMENT_WINDOW
    token = sessions.start(
        tx,
        person,
        source_id=source.id,
        lifetime=lifetime,
        now=now,
        user_agent=visitor.user_agent,
        address=visitor.address,
        factor_at=factor_at,
        enrolment_until=enrolment_until,
        replaces=visitor.session_token,
    )
    return StartedSession(token, person.status == "pending", attempt.next_path, source.id)


def _no_one_source(
    tx: Transaction, started_at: SignInSource, claims: Mapping[str, Any], matching: Sequence[SignInSource]
) -> SignInRefused:
    if matching:
        names = ", ".join(source.name for source in matching)
        return SignInRefused(f"The person's claims fit more than one source: {names}.")
    lacks = ", ".join(sorted(name for name in sources.claims_that_decide(tx, started_at) if name not in claims))
    return SignInRefused(
        f"The provider sends no claim {lacks}, neither in the ID token nor in UserInfo."
        if lacks
        else "The person's claims have other values than any source of this issuer requires, or of another type."
    )


def _person(
    tx: Transaction, source: SignInSource, invitation: Invitation | None, claims: Mapping[str, Any], now: datetime
) -> tuple[Person, datetime | None]:
    """Who signed in, and until when this session may enrol a factor."""
    subject = str(claims["sub"])
    # The same person coming twice at once must not join twice.
    one_at_a_time(tx, f"{source.issuer} {subject}")
    _check_vendor(tx, source)
    person = _known_person(tx, source, subject)
    if person is None:
        return _join(tx, source, invitation, claims, now)
    person.email = still_shown(person.email, claims)
    if person.status == "refused":
        return _reinvite_refused(tx, source, person, invitation, now), None
    if person.status == "pending":
        # Nobody has confirmed them yet: what was missing may still come. Later it stays what was confirmed.
        person.name, person.email = person.name or display_name(claims), person.email or display_address(claims)
    if invitation is None or invitation.expires_at <= now:
        return person, None
    return person, _invited_again(tx, source, person, invitation, now)


def _invited_again(
    tx: Transaction, source: SignInSource, person: Person, invitation: Invitation, now: datetime
) -> datetime | None:
    """What a link gives somebody who is known here already."""
    if invitation.purpose == "enrol_factor":
        return _enrolling(tx, person, invitation, now)
    if invitation.org_role is not None and invitation.redeemed_at is None and invitation.source_id == source.id:
        # The server's own invitation: the role for as long as it says, and a new factor.
        if person.status != "active":
            raise SignInRefused("The recovery link was opened by someone who is not active here.")
        invitations.redeem_join(tx, invitation, person, now)
        _give_role(tx, person, invitation, now)
        return now + invitations.ENROLMENT_WINDOW
    # The joining link, opened again by the one who joined with it, is the admin's invitation to enrol.
    if invitation.redeemed_by != person.id or person.status != "active" or invitations.has_factor(tx, person.id):
        return None
    return now + invitations.ENROLMENT_WINDOW


def _reinvite_refused(
    tx: Transaction, source: SignInSource, person: Person, invitation: Invitation | None, now: datetime
) -> Person:
    """Somebody who was turned away, and has been invited again: an admin decides about them once more."""
    by_people = invitation is not None and invitation.purpose == "join" and invitation.org_role is None
    if invitation is None or not by_people or invitation.source_id != source.id or invitation.expires_at <= now:
        raise NotSignedIn(
            "You joined through a link that was meant for someone else, and were refused.",
            advice="Ask the person who invited you for your own link.",
            code="joining_refused",
        )
    invitations.redeem_join(tx, invitation, person, now)
    person.status, person.invited_by = "pending", _inviter(invitation)
    tx.flush()
    _record_joined(tx, person, invitation, now)
    return person


def _enrolling(tx: Transaction, person: Person, invitation: Invitation, now: datetime) -> datetime | None:
    if invitation.person_id != person.id:
        raise NotSignedIn(
            "This link is for someone else.",
            advice="Sign in as the person it was sent to.",
            code="link_foreign",
        )
    if invitation.redeemed_at is not None or invitations.has_factor(tx, person.id):
        return None
    invitations.redeem_join(tx, invitation, person, now)
    audit.record(tx, "factor.enrolment_opened", actor=f"person:{person.id}", subject=person.id, now=now)
    return now + invitations.ENROLMENT_WINDOW


def _known_person(tx: Transaction, source: SignInSource, subject: str) -> Person | None:
    person = tx.scalars(select(Person).where(Person.issuer == source.issuer, Person.subject == subject)).one_or_none()
    if person is None:
        return None
    if person.source_id != source.id:
        raise SignInRefused("The person joined through another source of this issuer.")
    if person.status == "suspended":
        raise _suspended(tx, "person", person.id)
    return person


def _check_vendor(tx: Transaction, source: SignInSource) -> None:
    if source.vendor_id is None:
        return
    if tx.execute(select(PolicyInForce.closed_at)).scalar_one_or_none() is not None:
        raise NotSignedIn(
            "Guestkey is closed.", advice="Ask the person who invited you when it will open.", code="closed"
        )
    vendor = tx.get(Vendor, source.vendor_id)
    if vendor is not None and vendor.status not in ("active", "onboarding"):
        raise _suspended(tx, "vendor", vendor.id)


def _suspended(tx: Transaction, what: str, target_id: str) -> NotSignedIn:
    log.info("sign_in.suspended")
    this = (Suspension.what == what, Suspension.target_id == target_id, Suspension.resumed_at.is_(None))
    advice = (
        tx.execute(select(Suspension.message).where(*this)).scalar_one_or_none() or "Ask the person who invited you."
    )
    return NotSignedIn("This account is suspended.", advice=advice, code="account_suspended")


def _join(
    tx: Transaction, source: SignInSource, invitation: Invitation | None, claims: Mapping[str, Any], now: datetime
) -> tuple[Person, datetime | None]:
    if invitation is None or invitation.purpose != "join":
        raise NotSignedIn(
            "This account has not joined.",
            advice="Open the invitation link you were sent, then sign in.",
            code="unknown",
        )
    if invitation.source_id != source.id:
        raise SignInRefused("The invitation is for another source than the one that the person's claims lead to.")
    by_server = invitation.org_role is not None
    person = Person(
        id=new_id("pe"),
        issuer=source.issuer,
        subject=str(claims["sub"]),
        source_id=source.id,
        vendor_id=source.vendor_id,
        name=display_name(claims),
        email=display_address(claims),
        status="active" if by_server else "pending",
        invited_by=_inviter(invitation),
    )
    tx.add(person)
    tx.flush()
    invitations.redeem_join(tx, invitation, person, now)
    if by_server:
        _give_role(tx, person, invitation, now)
    _record_joined(tx, person, invitation, now)
    return person, now + BOOTSTRAP_ENROLMENT if by_server else None


def _record_joined(tx: Transaction, person: Person, invitation: Invitation, now: datetime) -> None:
    details = {
        "invitation": invitation.id,
        "source": person.source_id,
        "vendor": person.vendor_id,
        "role": invitation.org_role,
    }
    personal = {"name": person.name, "email": person.email}
    actor = f"person:{person.id}"
    audit.record(tx, "person.joined", actor=actor, subject=person.id, now=now, details=details, personal=personal)


def _give_role(tx: Transaction, person: Person, invitation: Invitation, now: datetime) -> None:
    role, until = invitation.org_role, invitation.role_until
    same = (RoleHeld.person_id == person.id, RoleHeld.role == role, RoleHeld.ended_at.is_(None))
    current = tx.scalars(select(RoleHeld.id).where(*same).with_for_update()).one_or_none()
    if current is not None:
        lapsed = (RoleHeld.id == current, RoleHeld.until.is_not(None), RoleHeld.until <= now)
        tx.execute(update(RoleHeld).where(*lapsed).values(until=until))
    else:
        tx.add(RoleHeld(id=new_id("rh"), person_id=person.id, role=role or "", given_at=now, until=until))
    details = {"role": role, "until": until.isoformat() if until else None, "invitation": invitation.id}
    audit.record(tx, "role.given", actor=audit.SYSTEM, subject=person.id, now=now, details=details)
    if until is not None:
        audit.record(tx, "recovery.used", actor=f"person:{person.id}", subject=invitation.id, now=now)


def _inviter(invitation: Invitation) -> str | None:
    kind, _, person_id = (invitation.created_by or "").partition(":")
    return person_id if kind == "person" else None


def _provider_factor(
    source: SignInSource, attempt: SignInAttempt, claims: Mapping[str, Any], now: datetime
) -> datetime | None:
    """When the provider itself asked for a second factor: if two admins trusted it, it was asked for, and answered."""
    asked = set((attempt.asked_acr or "").split())
    amr = claims.get("amr")
    answered = {item for item in (claims.get("acr"), *(amr if isinstance(amr, list) else [])) if isinstance(item, str)}
    if not source.trusts_mfa or not answered & asked & set(source.mfa_values):
        return None
    return min(now, datetime.fromtimestamp(claims["auth_time"], UTC))


def display_name(claims: Mapping[str, Any]) -> str:
    """The name to show; empty: the provider tells none."""
    parts = (_text(claims, "given_name"), _text(claims, "family_name"))
    full = _text(claims, "name") or " ".join(filter(None, parts))[:_LONGEST_NAME]
    return full or _text(claims, "preferred_username") or _text(claims, "nickname")


def display_address(claims: Mapping[str, Any]) -> str:
    """The address to show; empty: the provider tells none, or does not call it verified (`email_verified: true`).

    What nobody verified could be anybody's address, and whoever confirms a person would take it for theirs.
    """
    verified = claims.get("email_verified", False)
    if verified is not True:
        if verified is not False:
            log.warning("claim.type", claim="email_verified", type=type(verified).__name__)
        return ""
    return _text(claims, "email", _LONGEST_ADDRESS)


def still_shown(address: str, claims: Mapping[str, Any]) -> str:
    """The address known so far; empty where the provider tells that very one and does not call it verified."""
    return "" if claims.get("email") == address != display_address(claims) else address


def _text(claims: Mapping[str, Any], name: str, most: int = _LONGEST_NAME) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        if value is not None:
            log.warning("claim.type", claim=name, type=type(value).__name__)
        return ""
    return "".join(character for character in value if character.isprintable())[:most].strip()


def remember_address(tx: Transaction, person_id: str, claims: Mapping[str, Any]) -> None:
    """Keep the address of these verified claims; one that is no longer called verified is forgotten."""
    claimed = claims.get("email") if claims.get("email_verified") is True else None
    found = address(claimed) if isinstance(claimed, str) else ""
    held = insert(NoticeAddress).values(person_id=person_id, address=found)
    changed = NoticeAddress.address != held.excluded.address
    update = {"address": held.excluded.address}
    tx.execute(held.on_conflict_do_update(index_elements=[NoticeAddress.person_id], set_=update, where=changed))


def deliverable_addresses(tx: Transaction, people: Sequence[str]) -> Sequence[NoticeAddress]:
    """The addresses of those who may be mailed: active, and if of a vendor, of one that works for us."""
    ours = or_(Person.vendor_id.is_(None), Vendor.status.in_(("onboarding", "active")))
    return tx.scalars(
        select(NoticeAddress)
        .join(Person, Person.id == NoticeAddress.person_id)
        .outerjoin(Vendor, Vendor.id == Person.vendor_id)
        .where(NoticeAddress.person_id.in_(people), NoticeAddress.address != "", Person.status == "active", ours)
        # In one order, so that two workers who begin digests never wait for each other.
        .order_by(NoticeAddress.person_id)
    ).all()
