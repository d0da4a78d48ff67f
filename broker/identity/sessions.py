"""Sessions of browsers and tokens of command lines: started, listed, ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update

from broker.base.database import Transaction
from broker.base.errors import NotFound
from broker.base.ids import is_id, new_id
from broker.identity.caller import Caller
from broker.identity.secret_tokens import digest, fresh_token
from broker.log import audit
from broker.models import ApiToken, Person, Session

# Makes a condition of the columns that both have.
Which = Callable[[type[Session] | type[ApiToken]], ColumnElement[bool]]


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
        tx.execute(
            update(Session)
            .where(Session.token_hash == digest(replaces), Session.ended_at.is_(None))
            .values(ended_at=now, end_cause="replaced")
        )
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
    live = tx.scalars(
        select(Session).where(Session.person_id == caller.id, Session.ended_at.is_(None), Session.expires_at > now)
    )
    tokens = tx.scalars(
        select(ApiToken).where(ApiToken.person_id == caller.id, ApiToken.ended_at.is_(None), ApiToken.expires_at > now)
    )
    found = [_holder(row, "browser", row.user_agent, caller) for row in live]
    found += [_holder(row, "command line", row.client_id, caller) for row in tokens]
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
    tx.execute(
        update(Session)
        .where(Session.id == caller.holder_id, Session.ended_at.is_(None))
        .values(token_hash=digest(token))
    )
    return token


def end_matching(tx: Transaction, which: Which, now: datetime, *, cause: str) -> list[str]:
    """End every session and API token that meets the condition. Returns the ids of those that lived."""
    ended: list[str] = []
    for record in (Session, ApiToken):
        rows = tx.execute(
            update(record)
            .where(which(record), record.ended_at.is_(None))
            .values(ended_at=now, end_cause=cause)
            .returning(record.id, record.expires_at)
        )
        ended += [row.id for row in rows if row.expires_at > now]
    return sorted(ended)


def _holder(row: Session | ApiToken, sort: str, client: str, caller: Caller) -> SignIn:
    return SignIn(
        row.id,
        sort,
        row.created_at,
        row.last_seen_at,
        row.expires_at,
        row.factor_at,
        client,
        row.id == caller.holder_id,
        row.session_id if isinstance(row, ApiToken) else None,
    )
