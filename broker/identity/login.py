"""Signing in: out to the provider, bound to one browser, and back as a session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import delete, func, select, update

from broker import audit
from broker.database import Transaction
from broker.database import now as clock
from broker.errors import Invalid, NotSignedIn
from broker.identity import invitations, oidc, sessions, sources
from broker.identity.oidc import Client, Expected, Providers
from broker.identity.secret_tokens import digest, fresh_token, is_token
from broker.models import Invitation, Person, RoleHeld, SignInAttempt, SignInSource, Vendor, new_id
from broker.parts import Parts

log = structlog.get_logger(__name__)
ATTEMPT_LIFETIME = timedelta(minutes=10)
BOOTSTRAP_ENROLMENT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Departure:
    """Where to send the browser, and the cookie that binds the sign-in to it."""

    url: str
    browser_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A session begun: the cookie's value, whether the person may act yet, and where they wanted to go."""

    session_token: str = field(repr=False)
    pending: bool
    next_path: str


@dataclass(frozen=True, slots=True)
class Visitor:
    """What the browser says of itself; kept with the session."""

    address: str
    user_agent: str
    session_token: str = field(default="", repr=False)


def depart(
    parts: Parts,
    providers: Providers,
    source_id: str,
    *,
    next_path: str = "/",
    invitation_token: str | None = None,
    browser_token: str = "",
) -> Departure:
    """Begin a sign-in at a source.

    Args:
        browser_token: what binds this browser already, so that two tabs may sign in at once; else a new one is made.

    Raises:
        NotFound: the source or the invitation is not valid.
        BackendDown: the provider or the key store does not answer.
    """
    with parts.database.transaction() as tx:
        now = clock(tx)
        source = sources.active(tx, source_id)
        invitation = None
        if invitation_token is not None:
            invitation = invitations.pending(tx, invitation_token, "join", now)
    state, browser_token = fresh_token(), browser_token if is_token(browser_token) else fresh_token()
    expected = _expected(parts, browser_token, state)
    acr_values = " ".join(source.mfa_values) if source.trusts_mfa else None
    url = oidc.authorization_url(providers, _client(parts, source), expected, state, acr_values=acr_values)
    with parts.database.transaction() as tx:
        tx.add(
            SignInAttempt(
                state_hash=digest(state),
                browser_hash=digest(browser_token),
                source_id=source.id,
                invitation_id=invitation.id if invitation else None,
                asked_acr=acr_values,
                next_path=safe_path(next_path),
                expires_at=now + ATTEMPT_LIFETIME,
            )
        )
    return Departure(url, browser_token)


def arrive(
    parts: Parts, providers: Providers, answer: Mapping[str, str], browser_token: str, visitor: Visitor
) -> Arrival:
    """Finish a sign-in with what the provider sent the browser back with.

    Args:
        answer: the callback's parameters, each given once: `code`, `state`, perhaps `iss` or `error`.

    Raises:
        NotSignedIn: anything is not as it was bound, or nobody here is that person.
        BackendDown: the provider does not answer.
    """
    attempt = _consume(parts, answer.get("state", ""), browser_token)
    with parts.database.transaction() as tx:
        source = tx.get_one(SignInSource, attempt.source_id)
    oidc.check_callback_issuer(providers, source.issuer, answer.get("iss"))
    if "error" in answer or not answer.get("code"):
        raise NotSignedIn("The provider did not let you in.", advice="Sign in again.", code="sign_in_refused")
    expected = _expected(parts, browser_token, answer["state"])
    claims = oidc.exchange(providers, _client(parts, source), expected, answer["code"], _now(parts))
    with parts.database.transaction() as tx:
        return _admit(tx, parts, source, attempt, claims, visitor)


def _expected(parts: Parts, browser_token: str, state: str) -> Expected:
    # Derived from the browser's cookie, of which only a hash is kept: neither a copy of the records nor the address
    # that comes back, which holds code and state, is enough to redeem the code.
    nonce, verifier = (
        hmac.new(browser_token.encode(), f"{purpose}:{state}".encode(), hashlib.sha256).hexdigest()
        for purpose in ("nonce", "verifier")
    )
    return Expected(nonce, verifier, parts.settings.login_max_age)


def safe_path(path: str) -> str:
    """A path of ours to go to afterwards; anything that could lead elsewhere becomes the home page."""
    local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if local and path.isprintable() and len(path) <= 2000 else "/"


def _consume(parts: Parts, state: str, browser_token: str) -> SignInAttempt:
    """Take the attempt out of the records: a second callback with the same state finds nothing."""
    if not is_token(state) or not is_token(browser_token):
        raise oidc.refused("state")
    with parts.database.transaction() as tx:
        attempt = tx.execute(
            delete(SignInAttempt)
            .where(SignInAttempt.state_hash == digest(state), SignInAttempt.browser_hash == digest(browser_token))
            .returning(SignInAttempt)
        ).scalar_one_or_none()
        if attempt is None or attempt.expires_at <= clock(tx):
            raise oidc.refused("state")
        tx.expunge(attempt)
        return attempt


def _admit(
    tx: Transaction,
    parts: Parts,
    started_at: SignInSource,
    attempt: SignInAttempt,
    claims: Mapping[str, Any],
    visitor: Visitor,
) -> Arrival:
    now = clock(tx)
    matching = [source for source in sources.siblings(tx, started_at) if sources.matches(source, claims)]
    if len(matching) != 1:
        raise oidc.refused("no source" if not matching else "two sources")
    source = matching[0]
    invitation = tx.get(Invitation, attempt.invitation_id) if attempt.invitation_id else None
    person, enrolment_until = _person(tx, source, invitation, claims, now)
    factor_at = _provider_factor(source, attempt, claims, now)
    if factor_at is not None and source.vendor_id is None and not invitations.has_factor(tx, person.id):
        enrolment_until = now + invitations.ENROLMENT_WINDOW
    token = sessions.start(
        tx,
        person,
        source_id=source.id,
        lifetime=parts.settings.session_lifetime,
        now=now,
        user_agent=visitor.user_agent,
        address=visitor.address,
        factor_at=factor_at,
        enrolment_until=enrolment_until,
        replaces=visitor.session_token,
    )
    return Arrival(token, person.status == "pending", attempt.next_path)


def _person(
    tx: Transaction, source: SignInSource, invitation: Invitation | None, claims: Mapping[str, Any], now: datetime
) -> tuple[Person, datetime | None]:
    """Who signed in, and until when this session may enrol a factor."""
    subject = str(claims["sub"])
    # The same person coming twice at once must not join twice.
    tx.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{source.issuer} {subject}", 0))))
    _check_vendor(tx, source)
    person = _known_person(tx, source, subject)
    if person is None:
        return _join(tx, source, invitation, claims, now)
    if invitation is None or invitation.expires_at <= now:
        return person, None
    if invitation.org_role is not None and invitation.redeemed_at is None and invitation.source_id == source.id:
        return person, _recovered(tx, person, invitation, now)
    return person, _reopened(tx, person, now) if invitation.redeemed_by == person.id else None


def _recovered(tx: Transaction, person: Person, invitation: Invitation, now: datetime) -> datetime:
    """The server's own invitation, opened by somebody known: the role for as long as it says, and a new factor."""
    if person.status != "active":
        raise oidc.refused("recovery by a person not active")
    invitations.redeem_join(tx, invitation, person, now)
    _give_role(tx, person, invitation, now)
    return now + invitations.ENROLMENT_WINDOW


def _reopened(tx: Transaction, person: Person, now: datetime) -> datetime | None:
    """The joining link, opened again by the one who joined with it, is the admin's invitation to enrol."""
    if person.status != "active" or invitations.has_factor(tx, person.id):
        return None
    return now + invitations.ENROLMENT_WINDOW


def _known_person(tx: Transaction, source: SignInSource, subject: str) -> Person | None:
    person = tx.scalars(select(Person).where(Person.issuer == source.issuer, Person.subject == subject)).one_or_none()
    if person is None:
        return None
    if person.source_id != source.id:
        raise oidc.refused("person of another source")
    if person.status == "suspended":
        raise _suspended()
    return person


def _check_vendor(tx: Transaction, source: SignInSource) -> None:
    vendor = tx.get(Vendor, source.vendor_id) if source.vendor_id else None
    if vendor is not None and vendor.status not in ("active", "onboarding"):
        raise _suspended()


def _suspended() -> NotSignedIn:
    log.info("sign_in.suspended")
    return NotSignedIn("This account is suspended.", advice="Ask the person who invited you.", code="account_suspended")


def _join(
    tx: Transaction, source: SignInSource, invitation: Invitation | None, claims: Mapping[str, Any], now: datetime
) -> tuple[Person, datetime | None]:
    if invitation is None:
        raise NotSignedIn(
            "Nobody here knows you yet.", advice="Open the invitation link you were sent, then sign in.", code="unknown"
        )
    if invitation.source_id != source.id:
        raise oidc.refused("invitation of another source")
    by_server = invitation.org_role is not None
    person = Person(
        id=new_id("pe"),
        issuer=source.issuer,
        subject=str(claims["sub"]),
        source_id=source.id,
        vendor_id=source.vendor_id,
        name=_clean(claims.get("name"), 200) or _clean(claims.get("preferred_username"), 200),
        # What the provider itself calls unverified could be anybody's address.
        email="" if claims.get("email_verified") is False else _clean(claims.get("email"), 320),
        status="active" if by_server else "pending",
        invited_by=_inviter(invitation),
    )
    tx.add(person)
    tx.flush()
    invitations.redeem_join(tx, invitation, person, now)
    if by_server:
        _give_role(tx, person, invitation, now)
    audit.record(
        tx,
        "person.joined",
        actor=f"person:{person.id}",
        subject=person.id,
        now=now,
        details={
            "invitation": invitation.id,
            "source": source.id,
            "vendor": source.vendor_id,
            "role": invitation.org_role,
        },
        personal={"name": person.name, "email": person.email},
    )
    return person, now + BOOTSTRAP_ENROLMENT if by_server else None


def _give_role(tx: Transaction, person: Person, invitation: Invitation, now: datetime) -> None:
    role, until = invitation.org_role, invitation.role_until
    held = select(RoleHeld.id).where(
        RoleHeld.person_id == person.id, RoleHeld.role == role, RoleHeld.ended_at.is_(None)
    )
    current = tx.scalars(held.with_for_update()).one_or_none()
    if current is not None:
        tx.execute(
            update(RoleHeld)
            .where(RoleHeld.id == current, RoleHeld.until.is_not(None), RoleHeld.until <= now)
            .values(until=until)
        )
    else:
        tx.add(RoleHeld(id=new_id("rh"), person_id=person.id, role=role or "", given_at=now, until=until))
    audit.record(
        tx,
        "role.given",
        actor=audit.SYSTEM,
        subject=person.id,
        now=now,
        details={"role": role, "until": until.isoformat() if until else None, "invitation": invitation.id},
    )
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


def _client(parts: Parts, source: SignInSource) -> Client:
    redirect_uri = str(parts.settings.public_url).rstrip("/") + "/sign-in/callback"
    return Client(source.issuer, source.client_id, sources.client_secret(parts.vault, source), redirect_uri)


def _clean(value: object, most: int) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(character for character in value if character.isprintable())[:most].strip()


def _now(parts: Parts) -> datetime:
    with parts.database.transaction() as tx:
        return clock(tx)


def check_single(parameters: list[tuple[str, str]]) -> dict[str, str]:
    """Query parameters as a mapping.

    Raises:
        Invalid: one is given twice; which of them counts is a question attackers like.
    """
    found = dict(parameters)
    if len(found) != len(parameters):
        raise Invalid("A parameter was given twice.", advice="Sign in again.")
    return found
