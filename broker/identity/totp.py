"""Time-based one-time codes (RFC 6238). A code works once, in any spelling, from any replica."""

from __future__ import annotations

import hmac
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

import pyotp
import segno
import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction, clock
from broker.base.errors import Conflict
from broker.identity import factors
from broker.identity.caller import Caller
from broker.identity.factors import FactorProof
from broker.keystore.vault import VaultRefused
from broker.models import FactorChallenge, TotpFactor
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
DIGITS = 6
ENROLMENT_SECONDS = 600
_ISSUER = "Guestkey"
_PURPOSE = "totp"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A new secret, to be confirmed with a code: as text, as `otpauth:` URI, and as an inline SVG image."""

    secret: str = field(repr=False)
    uri: str = field(repr=False)
    qr_svg: str = field(repr=False)


def canonical(code: str) -> str | None:
    """The six ASCII digits a spelling stands for (full-width digits, blanks, hyphens), or None."""
    if len(code) > 64:
        return None
    folded = unicodedata.normalize("NFKC", code)
    digits = "".join(character for character in folded if not character.isspace() and character not in "-\u2010\u2011")
    return digits if len(digits) == DIGITS and digits.isascii() and digits.isdigit() else None


def matching_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step the code belongs to, one before or after now included; None if it is wrong."""
    typed = canonical(code)
    if typed is None:
        return None
    totp = pyotp.TOTP(secret, digits=DIGITS, interval=factors.CODE_SECONDS)
    current = int(now.timestamp()) // factors.CODE_SECONDS
    matched = None
    for step in (current - 1, current, current + 1):
        if hmac.compare_digest(totp.at(step * factors.CODE_SECONDS), typed):
            matched = step
    return matched


def begin(parts: Parts, caller: Caller, allowed_until: datetime | None, proof: FactorProof | None = None) -> Enrolment:
    """Make a new secret, kept wrapped until a code confirms it; an existing one stays in force till then.

    Args:
        proof: the factor that came with the request; not needed in an opened window.

    Raises:
        FactorNeeded, Forbidden, NotFound: see `factors.require_enrolment_right`.
    """
    with parts.database.transaction() as tx:
        proven = factors.require_enrolment_right(tx, caller, allowed_until, proof, clock(tx))
    secret = pyotp.random_base32()
    wrapped = parts.vault.encrypt("totp", secret.encode(), context=caller.id)
    with parts.database.transaction() as tx:
        purpose = f"{_PURPOSE}{proven}"
        factors.keep_challenge(tx, caller, purpose, wrapped.encode(), ENROLMENT_SECONDS, clock(tx))
    uri = pyotp.TOTP(secret).provisioning_uri(name=caller.name or caller.id, issuer_name=_ISSUER)
    qr_svg = segno.make(uri, error="m").svg_inline(scale=5, border=2, omitsize=False)
    return Enrolment(secret, uri, qr_svg)


def confirm_enrolment(parts: Parts, caller: Caller, allowed_until: datetime | None, code: str) -> list[str]:
    """Put the newest secret in force with a first code. Returns new recovery codes, shown once.

    Raises:
        Invalid: the code is wrong. Conflict: there is nothing to confirm.
        TooMany: locked out.
        FactorNeeded, Forbidden, NotFound: see `factors.require_begun`.
    """
    factors.require_browser(caller)
    with parts.database.transaction_now() as (tx, now):
        begun = select(FactorChallenge).where(factors.begun(caller, _PURPOSE), FactorChallenge.expires_at > now)
        waiting = tx.scalar(begun.order_by(FactorChallenge.id.desc()).limit(1))
        if waiting is None:
            raise Conflict("There is nothing to confirm.", advice="Start again and scan the new code.")
        factors.require_begun(tx, caller, allowed_until, waiting.purpose, now)
    secret = _unwrap(parts, caller, waiting.challenge.decode())
    with parts.database.transaction_now() as (tx, now):
        person = factors.locked_person(tx, caller, now)
        step = matching_step(secret, code, now)
        if step is not None:
            factors.note_success(person)
            factors.require_begun(tx, caller, allowed_until, waiting.purpose, now)
            _put_in_force(tx, caller, waiting, step, now)
            return factors.make_recovery_codes(tx, caller, now)
        left = factors.note_failure(tx, person, caller, parts.settings, now)
    raise factors.wrong_code(left)


def prove(parts: Parts, caller: Caller, code: str) -> FactorProof:
    """Prove the second factor for this session or token with a code, which is used up by it.

    Raises:
        Invalid: the code is wrong, or was used before.
        TooMany: locked out.
        Conflict: the person has no authenticator app.
        BackendDown: the key store, which unwraps the secret, does not answer.
    """
    with parts.database.transaction() as tx:
        factors.locked_person(tx, caller, clock(tx))
        kept = tx.get(TotpFactor, caller.id)
    if kept is None or kept.confirmed_at is None:
        raise Conflict("You have no authenticator app.", advice="Use a passkey, or add an app under Security.")
    secret = _unwrap(parts, caller, kept.wrapped_secret)
    with parts.database.transaction_now() as (tx, now):
        person = factors.locked_person(tx, caller, now)
        step = matching_step(secret, code, now)
        if step is not None and _use_up(tx, caller.id, kept.wrapped_secret, step):
            factors.note_success(person)
            return factors.mark_proven(tx, caller, "totp", now)
        left = factors.note_failure(tx, person, caller, parts.settings, now)
    raise factors.wrong_code(left)


def _unwrap(parts: Parts, caller: Caller, wrapped: str) -> str:
    try:
        return parts.vault.decrypt("totp", wrapped, context=caller.id).decode()
    except VaultRefused as error:
        log.error("totp.unreadable", person=caller.id)
        raise Conflict(
            "Your authenticator app can no longer be checked.", advice="Ask two admins to reset your factor."
        ) from error


def _use_up(tx: Transaction, person_id: str, wrapped_secret: str, step: int) -> bool:
    """Use a step once: whoever comes second, from any replica, updates no row."""
    same = (TotpFactor.person_id == person_id, TotpFactor.wrapped_secret == wrapped_secret)
    use = update(TotpFactor).where(*same, TotpFactor.last_step < step).values(last_step=step)
    return tx.scalar(use.returning(TotpFactor.person_id)) is not None


def _put_in_force(tx: Transaction, caller: Caller, waiting: FactorChallenge, step: int, now: datetime) -> None:
    gone = tx.get(FactorChallenge, waiting.id)
    if gone is None:
        raise Conflict("This authenticator app was already confirmed.")
    tx.execute(delete(FactorChallenge).where(factors.begun(caller, _PURPOSE)))
    before = tx.get(TotpFactor, caller.id)
    replaced = before is not None and before.confirmed_at is not None
    values = {"wrapped_secret": waiting.challenge.decode(), "last_step": step, "confirmed_at": now}
    kept = insert(TotpFactor).values(person_id=caller.id, **values)
    tx.execute(kept.on_conflict_do_update(index_elements=[TotpFactor.person_id], set_=values))
    factors.record_enrolled(tx, caller, "totp", now, replaced=replaced)
