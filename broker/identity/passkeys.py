"""Passkeys (WebAuthn Level 3), verified by `webauthn`; challenges are bound to one session and used once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
import webauthn
from sqlalchemy import delete, select, update
from webauthn.helpers import base64url_to_bytes, options_to_json
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from broker.base.database import Transaction, clock
from broker.base.errors import Conflict, Invalid
from broker.base.ids import new_id
from broker.identity import factors
from broker.identity.caller import Caller
from broker.identity.factors import FactorProof
from broker.models import FactorChallenge, Passkey, RecoveryCode
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
T = TypeVar("T")
CHALLENGE_SECONDS = 300
_REGISTER, _PROVE = "passkey_register", "passkey_prove"


def registration_options(
    parts: Parts, caller: Caller, allowed_until: datetime | None, proof: FactorProof | None = None
) -> dict[str, Any]:
    """What the browser needs to make a passkey.

    Args:
        proof: the factor that came with the request; not needed in an opened window.

    Raises:
        FactorNeeded, Forbidden, NotFound: see `factors.require_enrolment_right`.
    """
    with parts.database.transaction_now() as (tx, now):
        proven = factors.require_enrolment_right(tx, caller, allowed_until, proof, now)
        held = _held(tx, caller.id)
        options = webauthn.generate_registration_options(
            rp_id=_rp_id(parts),
            rp_name="Guestkey",
            user_id=caller.id.encode(),
            user_name=caller.name or caller.id,
            exclude_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in held],
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
        )
        factors.keep_challenge(tx, caller, f"{_REGISTER}{proven}", options.challenge, CHALLENGE_SECONDS, now)
    return dict(json.loads(options_to_json(options)))


def register(
    parts: Parts, caller: Caller, allowed_until: datetime | None, credential: Mapping[str, Any], name: str
) -> list[str]:
    """Keep a passkey the browser made. Returns recovery codes if it is the first factor, else nothing.

    Raises:
        Invalid: the answer does not fit the challenge, this site, or is malformed.
        FactorNeeded, Forbidden, NotFound: see `factors.require_begun`.
    """
    factors.require_browser(caller)
    with parts.database.transaction_now() as (tx, now):
        challenge, purpose = _take(tx, caller, _REGISTER, now)
        factors.require_begun(tx, caller, allowed_until, purpose, now)
    verified = _verified(webauthn.verify_registration_response, parts, challenge, credential)
    with parts.database.transaction_now() as (tx, now):
        factors.require_begun(tx, caller, allowed_until, purpose, now)
        if tx.scalars(select(Passkey.id).where(Passkey.credential_id == verified.credential_id)).first():
            raise Conflict("This passkey is already registered.")
        tx.add(
            Passkey(
                id=new_id("pk"),
                person_id=caller.id,
                credential_id=verified.credential_id,
                public_key=verified.credential_public_key,
                sign_count=verified.sign_count,
                name=name[:80] or "Passkey",
                created_at=now,
            )
        )
        factors.record_enrolled(tx, caller, "passkey", now)
        has_codes = tx.scalars(select(RecoveryCode.id).where(RecoveryCode.person_id == caller.id)).first()
        return [] if has_codes else factors.make_recovery_codes(tx, caller, now)


def proof_options(parts: Parts, caller: Caller) -> dict[str, Any]:
    """What the browser needs to prove one of the caller's passkeys.

    Raises:
        Conflict: there is none.
    """
    with parts.database.transaction() as tx:
        held = _held(tx, caller.id)
        if not held:
            raise Conflict(
                "You have no passkey.", advice="Use your authenticator app, or add a passkey under Security."
            )
        options = webauthn.generate_authentication_options(
            rp_id=_rp_id(parts),
            allow_credentials=[PublicKeyCredentialDescriptor(id=passkey.credential_id) for passkey in held],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        factors.keep_challenge(tx, caller, _PROVE, options.challenge, CHALLENGE_SECONDS, clock(tx))
    return dict(json.loads(options_to_json(options)))


def prove(parts: Parts, caller: Caller, credential: Mapping[str, Any]) -> FactorProof:
    """Prove the second factor for this session with a passkey.

    Raises:
        Invalid: the answer does not fit. TooMany: locked out.
    """
    with parts.database.transaction_now() as (tx, now):
        factors.locked_person(tx, caller, now)
        challenge, _ = _take(tx, caller, _PROVE, now)
        passkey = _named(tx, caller, credential)
    try:
        new_count = _verified_count(parts, passkey, challenge, credential)
    except Invalid as error:
        refusal = error
        new_count = -1
    with parts.database.transaction_now() as (tx, now):
        person = factors.locked_person(tx, caller, now)
        if passkey is not None and new_count >= 0 and _count_use(tx, passkey, new_count, now):
            factors.note_success(person)
            return factors.mark_proven(tx, caller, "passkey", now)
        factors.note_failure(tx, person, caller, parts.settings, now)
    raise refusal if new_count < 0 else _refused("used meanwhile")


def _verified_count(parts: Parts, passkey: Passkey | None, challenge: bytes, credential: Mapping[str, Any]) -> int:
    """The use counter of a proof that holds."""
    if passkey is None:
        raise _refused("not a passkey of this person")
    known = {"credential_public_key": passkey.public_key, "credential_current_sign_count": passkey.sign_count}
    return _verified(webauthn.verify_authentication_response, parts, challenge, credential, **known).new_sign_count


def _verified(
    verify: Callable[..., T], parts: Parts, challenge: bytes, credential: Mapping[str, Any], **known: Any
) -> T:
    """What a browser's answer says, if it answers this challenge on this site."""
    site = urlsplit(str(parts.settings.public_url))
    try:
        return verify(
            credential=dict(credential),
            expected_challenge=challenge,
            expected_rp_id=_rp_id(parts),
            expected_origin=f"{site.scheme}://{site.netloc}",
            require_user_verification=True,
            **known,
        )
    except Exception as error:  # decoders of hostile CBOR and keys raise what they like; each is a refusal
        raise _refused(type(error).__name__) from error


def _count_use(tx: Transaction, passkey: Passkey, new_count: int, now: datetime) -> bool:
    """Note a use, unless another came in between: a copied authenticator shows itself by its counter."""
    same = update(Passkey).where(Passkey.id == passkey.id, Passkey.sign_count == passkey.sign_count)
    return tx.scalar(same.values(sign_count=new_count, last_used_at=now).returning(Passkey.id)) is not None


def _named(tx: Transaction, caller: Caller, credential: Mapping[str, Any]) -> Passkey | None:
    try:
        credential_id = base64url_to_bytes(str(credential.get("rawId", "")))
    except ValueError:
        return None
    own = select(Passkey).where(Passkey.credential_id == credential_id, Passkey.person_id == caller.id)
    return tx.scalars(own).one_or_none()


def _held(tx: Transaction, person_id: str) -> list[Passkey]:
    return list(tx.scalars(select(Passkey).where(Passkey.person_id == person_id)))


def _take(tx: Transaction, caller: Caller, purpose: str, now: datetime) -> tuple[bytes, str]:
    """Take this session's newest challenge out of the records, and what it was for; older ones go with it."""
    take = delete(FactorChallenge).where(factors.begun(caller, purpose))
    kept = (FactorChallenge.id, FactorChallenge.challenge, FactorChallenge.expires_at, FactorChallenge.purpose)
    taken = tx.execute(take.returning(*kept)).all()
    if not taken:
        raise Conflict("There is no passkey request to answer.", advice="Start again.")
    newest = max(taken, key=lambda row: str(row.id))
    if newest.expires_at <= now:
        raise Conflict("That took too long.", advice="Start again.")
    return bytes(newest.challenge), str(newest.purpose)


def _rp_id(parts: Parts) -> str:
    return str(parts.settings.public_url.host)


def _refused(why: str) -> Invalid:
    log.info("passkey.refused", why=why)
    return Invalid(
        "The passkey could not be verified.", field="/credential", advice="Try again.", code="passkey_refused"
    )
