"""Sessions of browsers and API tokens: started, listed, ended.

And the codes of command lines that become tokens: 60 seconds, once, by whoever began with the code.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from sqlalchemy import ColumnElement, select, update

from broker.base.database import Transaction
from broker.base.errors import NotFound
from broker.base.ids import is_id, new_id
from broker.identity.caller import Caller
from broker.identity.secret_tokens import API_TOKEN_PREFIX, digest, fresh_token
from broker.log import audit
from broker.models import ApiToken, AuthorizationCode, Person, Session, Vendor

# Makes a condition of the columns that both have.
Which = Callable[[type[Session] | type[ApiToken]], ColumnElement[bool]]
COMMAND_LINE = "guestkey-cli"
CODE_LIFETIME = timedelta(seconds=60)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


@dataclass(frozen=True, slots=True)
class SignIn:
    """A live session or API token, as its owner sees it. `allowed_by`: the session in which a token was allowed."""

    id: str
    sort: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    factor_at: datetime | None
    client: str
    current: bool
    allowed_by: str | None


def start(
    tx: Transaction,
    person: Person,
    *,
    source_id: str,
    lifetime: int,
    now: datetime,
    user_agent: str = "",
    address: str = "",
    factor_at: datetime | None = None,
    enrolment_until: datetime | None = None,
    replaces: str = "",
) -> str:
    """Start a session and return the cookie's value.

    Args:
        lifetime: the absolute limit, in seconds.
        replaces: the cookie's value that the browser sent; that session ends, whoever's it was.
    """
    if replaces:
        old = update(Session).where(Session.token_hash == digest(replaces), Session.ended_at.is_(None))
        tx.execute(old.values(ended_at=now, end_cause="replaced"))
    token = fresh_token()
    session = Session(
        id=new_id("se"),
        token_hash=digest(token),
        person_id=person.id,
        source_id=source_id,
        csrf_token=fresh_token(),
        user_agent=user_agent[:200],
        address=address[:64],
        last_seen_at=now,
        signed_in_at=now,
        expires_at=now + timedelta(seconds=lifetime),
        factor_at=factor_at,
        factor_method="provider" if factor_at else None,
        enrolment_allowed_until=enrolment_until,
    )
    tx.add(session)
    tx.flush()
    details = {"source": source_id, "provider_factor": factor_at is not None}
    personal = {"address": address}
    actor = f"person:{person.id}"
    audit.record(tx, "session.started", actor=actor, subject=session.id, now=now, details=details, personal=personal)
    return token


def list_sign_ins(tx: Transaction, caller: Caller, now: datetime) -> list[SignIn]:
    """The caller's own live sessions and API tokens, newest first."""
    found: list[SignIn] = []
    for record in (Session, ApiToken):
        live = (record.person_id == caller.id, record.ended_at.is_(None), record.expires_at > now)
        found += [_sign_in(row, caller) for row in tx.scalars(select(record).where(*live))]
    return sorted(found, key=lambda holder: holder.created_at, reverse=True)


def allowed_by(tx: Transaction, caller: Caller, session_id: str, now: datetime) -> list[SignIn]:
    """The caller's live command lines that were signed in through one session, newest first."""
    return [holder for holder in list_sign_ins(tx, caller, now) if holder.allowed_by == session_id]


def end_with_allowed(tx: Transaction, caller: Caller, session_id: str, now: datetime) -> None:
    """End one of the caller's own sessions, and the command lines that were signed in through it.

    Raises:
        NotFound: it is not the caller's, or has ended.
    """
    # The session first: a code that is being exchanged waits for it, and gives no token any more.
    end(tx, caller, session_id, now)
    for holder in allowed_by(tx, caller, session_id, now):
        end(tx, caller, holder.id, now, cause="signed_out")


def end(tx: Transaction, caller: Caller, holder_id: str, now: datetime, *, cause: str = "signed_out") -> None:
    """End one of the caller's own sessions or API tokens.

    Raises:
        NotFound: it is not the caller's, or has ended.
    """
    if not is_id(holder_id):
        raise NotFound("There is no such session of yours.")
    owner = ApiToken.service_id if caller.kind == "service" else ApiToken.person_id
    for record, own in ((Session, Session.person_id == caller.id), (ApiToken, owner == caller.id)):
        ended = update(record).where(record.id == holder_id, own, record.ended_at.is_(None))
        if tx.scalar(ended.values(ended_at=now, end_cause=cause).returning(record.id)) is not None:
            break
    else:
        raise NotFound("There is no such session of yours.")
    audit.record(tx, "session.ended", actor=caller.subject, subject=holder_id, now=now, details={"cause": cause})


def rotate(tx: Transaction, caller: Caller) -> str | None:
    """A new cookie value for the caller's session, once it has proven more than before; None for API tokens.

    Whoever copied the old value before the second factor was proven is left with nothing.
    """
    if caller.how != "session":
        return None
    token = fresh_token()
    own = update(Session).where(Session.id == caller.holder_id, Session.ended_at.is_(None))
    tx.execute(own.values(token_hash=digest(token)))
    return token


def end_matching(tx: Transaction, which: Which, now: datetime, *, cause: str) -> list[str]:
    """End every session and API token that meets the condition. Returns the ids of those that lived."""
    ended: list[str] = []
    for record in (Session, ApiToken):
        live = update(record).where(which(record), record.ended_at.is_(None))
        ending = live.values(ended_at=now, end_cause=cause)
        rows = tx.execute(ending.returning(record.id, record.expires_at))
        ended += [row.id for row in rows if row.expires_at > now]
    return sorted(ended)


def _sign_in(row: Any, caller: Caller) -> SignIn:
    return SignIn(
        row.id,
        "command line" if isinstance(row, ApiToken) else "browser",
        row.created_at,
        row.last_seen_at,
        row.expires_at,
        row.factor_at,
        row.client_id if isinstance(row, ApiToken) else row.user_agent,
        row.id == caller.holder_id,
        row.session_id if isinstance(row, ApiToken) else None,
    )


@dataclass(frozen=True, slots=True)
class GivenCode:
    """A code as it comes back, from which client, and what shows that this client asked for it (RFC 7636)."""

    code: str
    client_id: str
    redirect_uri: str
    verifier: str


def make_code(tx: Transaction, caller: Caller, redirect_uri: str, code_challenge: str, now: datetime) -> str:
    """Make a code for the person in a browser's session."""
    code = fresh_token()
    tx.add(
        AuthorizationCode(
            code_hash=digest(code),
            client_id=COMMAND_LINE,
            redirect_uri=redirect_uri,
            code_challenge=code_challenge,
            session_id=caller.holder_id,
            expires_at=now + CODE_LIFETIME,
        )
    )
    details = {"client": COMMAND_LINE}
    audit.record(tx, "code.made", actor=caller.subject, subject=caller.holder_id, now=now, details=details)
    return code


def redeem_code(tx: Transaction, given: GivenCode, lifetime: int, now: datetime) -> tuple[str, int] | None:
    """Turn a code into an opaque access token. Returns token and seconds; None if it is not valid, or was used.

    Args:
        given: the code and its client; another client's code stays as it is.
        lifetime: the longest a token lives, in seconds; one never outlives the session that allowed it.

    A code that comes a second time also ends the token it gave (RFC 6749, 4.1.2): one of the two is a thief. That must
    be committed before anything is raised.
    """
    code = tx.get(AuthorizationCode, digest(given.code), with_for_update=True)
    if code is None or given.client_id != code.client_id:
        return None
    if code.used_at is not None:
        _end_stolen(tx, code, now)
        return None
    code.used_at = now
    right = code.expires_at > now and given.redirect_uri == code.redirect_uri
    right = right and _proves(given.verifier, code.code_challenge)
    session = tx.get_one(Session, code.session_id)
    if not right or not _still_in(tx, session, now):
        return None
    token = fresh_token(API_TOKEN_PREFIX)
    # What a session allows ends with it at the latest: a copied cookie gives no more time than it has itself.
    expires_at = min(now + timedelta(seconds=lifetime), session.expires_at)
    record = ApiToken(
        id=new_id("at"),
        token_hash=digest(token),
        person_id=session.person_id,
        source_id=session.source_id,
        session_id=session.id,
        client_id=COMMAND_LINE,
        last_seen_at=now,
        expires_at=expires_at,
        # The person sits at this browser: what was proven there minutes ago was proven by who asks here.
        factor_at=session.factor_at,
        factor_method=session.factor_method,
    )
    tx.add(record)
    tx.flush()
    code.token_id = record.id
    details = {"client": COMMAND_LINE, "session": session.id}
    audit.record(tx, "token.issued", actor=f"person:{session.person_id}", subject=record.id, now=now, details=details)
    return token, max(1, int((expires_at - now).total_seconds()))


def issue_to_service(tx: Transaction, caller: Caller, seconds: int, now: datetime) -> str:
    """An opaque token for a service that has shown its secret."""
    token = fresh_token(API_TOKEN_PREFIX)
    record = ApiToken(
        id=new_id("at"),
        token_hash=digest(token),
        service_id=caller.id,
        client_id=caller.id,
        last_seen_at=now,
        expires_at=now + timedelta(seconds=seconds),
    )
    tx.add(record)
    tx.flush()
    personal = {"address": caller.address or ""}
    audit.record(tx, "token.issued", actor=caller.subject, subject=record.id, now=now, personal=personal)
    return token


def end_token(tx: Transaction, token: str, now: datetime) -> None:
    """End a token, whoever holds it; an unknown one changes nothing."""
    live = update(ApiToken).where(ApiToken.token_hash == digest(token), ApiToken.ended_at.is_(None))
    end_now = live.values(ended_at=now, end_cause="revoked")
    ended = tx.execute(end_now.returning(ApiToken.id, ApiToken.person_id, ApiToken.service_id)).one_or_none()
    if ended is not None:
        actor = f"person:{ended.person_id}" if ended.person_id else f"service:{ended.service_id}"
        audit.record(tx, "token.revoked", actor=actor, subject=ended.id, now=now)


def _end_stolen(tx: Transaction, code: AuthorizationCode, now: datetime) -> None:
    if code.token_id is None:
        return
    live = update(ApiToken).where(ApiToken.id == code.token_id, ApiToken.ended_at.is_(None))
    tx.execute(live.values(ended_at=now, end_cause="code_replayed"))
    audit.record(tx, "code.replayed", actor=audit.SYSTEM, subject=code.token_id, now=now)


def _still_in(tx: Transaction, session: Session, now: datetime) -> bool:
    # Locked: who is being suspended either waits for the new token and ends it, or is seen here as suspended.
    person = tx.get_one(Person, session.person_id, with_for_update={"read": True})
    vendor = tx.get(Vendor, person.vendor_id, with_for_update={"read": True}) if person.vendor_id else None
    # So is the session, after its person as everywhere: whoever signs it out ends the new token, too, or is seen here.
    tx.refresh(session, with_for_update={"read": True})
    live = session.ended_at is None and session.expires_at > now and person.status == "active"
    return live and (vendor is None or vendor.status in ("active", "onboarding"))


def _proves(verifier: str, challenge: str) -> bool:
    right = _VERIFIER.fullmatch(verifier) is not None
    return right and hmac.compare_digest(create_s256_code_challenge(verifier), challenge)
