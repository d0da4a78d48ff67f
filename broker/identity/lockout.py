"""Counting failures on the person, never on what was typed: no spelling of a name or code escapes the lockout."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select

from broker.base.database import Transaction
from broker.base.errors import Invalid, TooMany
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.log import audit
from broker.models import Person

# How long a TOTP code counts (RFC 6238 section 5.2).
CODE_SECONDS = 30


def locked_person(tx: Transaction, caller: Caller, now: datetime) -> Person:
    """The caller's record, locked for update: attempts of one person are judged one after the other.

    Raises:
        TooMany: locked out; guesses made meanwhile are not even looked at.
    """
    person = tx.scalars(select(Person).where(Person.id == caller.id).with_for_update()).one()
    if person.locked_until is not None and person.locked_until > now:
        wait = int((person.locked_until - now).total_seconds()) + 1
        raise TooMany("Too many wrong codes.", retry_after=wait, advice=f"Wait {wait} seconds, then try a new code.")
    return person


def note_success(person: Person) -> None:
    """Forget earlier failures."""
    person.failed_codes, person.locked_until = 0, None


def note_failure(tx: Transaction, person: Person, caller: Caller, settings: Settings, now: datetime) -> int:
    """Count a failure and lock out when there are too many. Returns the failures left before that."""
    person.failed_codes += 1
    left = settings.factor_max_failures - person.failed_codes
    if left <= 0:
        person.failed_codes = 0
        person.locked_until = now + timedelta(seconds=settings.factor_lockout)
    audit.record(
        tx,
        "factor.locked_out" if left <= 0 else "factor.refused",
        actor=caller.subject,
        subject=caller.id,
        now=now,
        personal={"address": caller.address or ""},
    )
    return max(left, 0)


def wrong_code(left: int) -> Invalid:
    """What a wrong or used code is answered with; `left` tries remain."""
    if left == 0:
        return Invalid(
            "The code is not correct. There were too many wrong codes.", field="/code", advice="Wait, then try again."
        )
    return Invalid(
        "The code is not correct, or was used before.",
        field="/code",
        advice=f"A new one comes every {CODE_SECONDS} seconds; {left} tries are left.",
        code="wrong_code",
    )
