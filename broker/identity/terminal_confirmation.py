"""Confirming a command line in the browser, for second factors a terminal cannot ask for: passkeys.

The command line asks with its API token; the person, signed in to the portal, proves a factor there for that one token.
What waits is bound to the token, shown with the same short code in both places, good once and for two minutes. A
later ask of the same token replaces an earlier one. See docs/decisions/0050.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, select, update

from broker.base.database import Transaction
from broker.base.errors import Conflict, FactorNeeded, Forbidden, NotFound
from broker.base.ids import is_id
from broker.identity import secret_tokens, sessions
from broker.identity.caller import Caller
from broker.identity.factors import keep_challenge
from broker.log import audit
from broker.models import ApiToken, FactorChallenge

SECONDS = 120
_PURPOSE = "browser"


@dataclass(frozen=True, slots=True)
class PendingConfirmation:
    """A command line that waits to be confirmed: which token, since when signed in, and from where it asks."""

    id: str
    holder_id: str
    code: str
    asked_at: datetime
    expires_at: datetime
    address: str = field(default="", repr=False)
    signed_in_at: datetime | None = None


def request_confirmation(tx: Transaction, caller: Caller, now: datetime) -> PendingConfirmation:
    """Let the caller's command line wait to be confirmed in the browser.

    Raises:
        Forbidden: this is no command line of a person.
        FactorNeeded: the person has no second factor.
    """
    if caller.kind != "person" or caller.how != "api_token":
        raise Forbidden(
            "Only a command line can be confirmed in another browser.", advice="Confirm in the portal itself."
        )
    if not caller.factor_enrolled:
        raise FactorNeeded(
            "You have no second factor yet.",
            max_age=SECONDS,
            enrolled=False,
            advice="Add a passkey or an authenticator app under Security first.",
        )
    tx.execute(delete(FactorChallenge).where(_of_token(caller.holder_id)))
    code = secret_tokens.new_short_code()
    challenge = json.dumps({"code": code, "address": caller.address or ""}).encode()
    return _as_waiting(keep_challenge(tx, caller, _PURPOSE, challenge, SECONDS, now), None)


def is_pending(tx: Transaction, caller: Caller, waiting_id: str, now: datetime) -> PendingConfirmation:
    """What the caller's own command line asked for, while nobody answered.

    Raises:
        NotFound: it was answered, is over, or never was.
    """
    if caller.how == "api_token" and is_id(waiting_id):
        own = (FactorChallenge.id == waiting_id, _of_token(caller.holder_id), FactorChallenge.expires_at > now)
        if (found := tx.scalars(select(FactorChallenge).where(*own)).one_or_none()) is not None:
            return _as_waiting(found, None)
    raise _none_pending()


def pending_confirmation(tx: Transaction, caller: Caller, waiting_id: str, now: datetime) -> PendingConfirmation:
    """What waits, for the same person in the browser to look at.

    Raises:
        NotFound: there is nothing, it is somebody else's, it is over, or its command line has ended.
    """
    query = select(FactorChallenge, ApiToken.created_at).join(ApiToken, ApiToken.id == FactorChallenge.holder_id)
    waits = (FactorChallenge.id == waiting_id, FactorChallenge.purpose == _PURPOSE, FactorChallenge.expires_at > now)
    own = (ApiToken.person_id == caller.id, ApiToken.ended_at.is_(None), ApiToken.expires_at > now)
    row = tx.execute(query.where(*waits, *own)).one_or_none() if is_id(waiting_id) else None
    if row is None:
        raise _none_pending()
    return _as_waiting(row[0], row[1])


def confirm(tx: Transaction, caller: Caller, waiting_id: str, now: datetime) -> None:
    """Count the factor that this session has just proven for the command line, too; once.

    Raises:
        NotFound: as for `shown`.
        Conflict: the session's factor was proven before the command line asked.
    """
    waiting = _take_pending(tx, caller, waiting_id, now)
    if caller.how != "session" or caller.factor_at is None or caller.factor_at < waiting.asked_at:
        raise Conflict("Your second factor was confirmed before this was requested.", advice="Confirm again.")
    own = (ApiToken.id == waiting.holder_id, ApiToken.person_id == caller.id, ApiToken.ended_at.is_(None))
    proven = update(ApiToken).where(*own).values(factor_at=caller.factor_at, factor_method=caller.factor_method)
    if tx.scalar(proven.returning(ApiToken.id)) is None:
        raise _none_pending()
    details = {"method": caller.factor_method, "holder": waiting.holder_id, "session": caller.holder_id}
    personal = {"address": caller.address or "", "asked_from": waiting.address}
    kind = "factor.proven_elsewhere"
    audit.record(tx, kind, actor=caller.subject, subject=caller.id, now=now, details=details, personal=personal)


def reject(tx: Transaction, caller: Caller, waiting_id: str, now: datetime) -> None:
    """The person did not ask: end that command line at once.

    Raises:
        NotFound: as for `shown`.
    """
    waiting = _take_pending(tx, caller, waiting_id, now)
    sessions.end(tx, caller, waiting.holder_id, now, cause="disowned")


def _take_pending(tx: Transaction, caller: Caller, waiting_id: str, now: datetime) -> PendingConfirmation:
    """Take what waits out of the records: whoever comes second finds nothing."""
    waiting = pending_confirmation(tx, caller, waiting_id, now)
    taken = delete(FactorChallenge).where(FactorChallenge.id == waiting.id)
    if tx.scalar(taken.returning(FactorChallenge.id)) is None:
        raise _none_pending()
    return waiting


def _of_token(holder_id: str) -> ColumnElement[bool]:
    return and_(FactorChallenge.holder_id == holder_id, FactorChallenge.purpose == _PURPOSE)


def _as_waiting(record: FactorChallenge, signed_in_at: datetime | None) -> PendingConfirmation:
    kept = json.loads(record.challenge)
    return PendingConfirmation(
        id=record.id,
        holder_id=record.holder_id,
        code=kept["code"],
        asked_at=record.expires_at - timedelta(seconds=SECONDS),
        expires_at=record.expires_at,
        address=kept["address"],
        signed_in_at=signed_in_at,
    )


def _none_pending() -> NotFound:
    return NotFound(
        "There is nothing to confirm.",
        advice="It was answered, expired after two minutes, or belongs to someone else. Run `guestkey confirm` again.",
    )
