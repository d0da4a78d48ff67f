"""Signed tokens as OAuth sees them: a service asking for one, whether one still lives, and giving one back.

They are made by a kind of their own, through the gate, like every credential.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from broker.base import words
from broker.base.database import clock
from broker.base.errors import BackendDown, Conflict, Denied, FactorNeeded, GuestkeyError, Invalid, NotFound
from broker.gate.facts import Ask
from broker.identity.caller import Caller
from broker.kinds.access_tokens import ALGORITHM, HEADER_TYPE, audience_of, scope_of, signing_keys
from broker.kinds.discovery import the_kind
from broker.leases import holdings
from broker.leases.issuing import issue
from broker.models import Lease
from broker.oauth.refusals import OAuthRefused
from broker.revocation import ending
from broker.runtime.parts import Parts

_ERRORS: tuple[tuple[type[GuestkeyError], str, int], ...] = (
    (Denied, "access_denied", 403),
    (FactorNeeded, "access_denied", 403),
    (NotFound, "invalid_target", 400),
    (Invalid, "invalid_scope", 400),
    (Conflict, "temporarily_unavailable", 409),
    (BackendDown, "temporarily_unavailable", 503),
)
_KIND = the_kind(lambda kind: kind.is_access_token).name


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A signed token, its seconds, and what it is good for."""

    token: str = field(repr=False)
    seconds: int
    scope: str


def issue_signed_token(parts: Parts, issuer: str, caller: Caller, form: dict[str, str]) -> SignedToken:
    """Ask the gate for a token for the dataset that `resource` names (RFC 8707).

    Raises:
        OAuthRefused: malformed, or refused by the gate with every reason in the description.
    """
    asked = _asked(issuer, form)
    try:
        handed = issue(parts, caller, asked)
    except GuestkeyError as error:
        raise _refused(error) from error
    if handed.values is None:
        raise RuntimeError("without an idempotency key nothing was issued before")
    seconds = int((handed.lease.expires_at - handed.lease.created_at).total_seconds())
    scope = scope_of(handed.lease.action, str(handed.values["slice"]))
    return SignedToken(handed.values["access_token"], seconds, scope)


def claims_of_live(parts: Parts, issuer: str, token: str) -> dict[str, Any] | None:
    """The claims of a token of ours whose lease is active now; None for anything else.

    Raises:
        BackendDown: the records or the keys cannot be read.
    """
    claims = _claims(parts, issuer, token)
    if claims is None:
        return None
    with parts.database.transaction() as tx:
        expires_at = holdings.live_until(tx, str(claims.get("jti")), _KIND, clock(tx))
    # A lease can be shortened after its token was signed; whoever keeps our answer must not keep it for longer.
    return None if expires_at is None else claims | {"exp": int(expires_at.timestamp())}


def revoke_signed_token(parts: Parts, issuer: str, token: str) -> None:
    """End the lease of a token of ours; whoever holds the token may. Anything else changes nothing."""
    claims = claims_of_live(parts, issuer, token)
    if claims is None:
        return
    with parts.database.transaction() as tx:
        ending.mark(tx, Lease.id == str(claims["jti"]), cause="revoked", by=str(claims["sub"]), now=clock(tx))


def _asked(issuer: str, form: dict[str, str]) -> Ask:
    slug = form["resource"].removeprefix(audience_of(issuer, ""))
    # By slug alone: a token made out to another name than the one asked for would surprise its guard.
    if audience_of(issuer, slug) != form["resource"] or re.fullmatch(words.SLUG, slug) is None:
        raise OAuthRefused("invalid_target", f"A resource is {audience_of(issuer, '<slug>')}.")
    asked = form.get("scope", "read").split(" ")
    actions = [word for word in asked if word and not word.startswith("slice:")]
    slices = [word.removeprefix("slice:") for word in asked if word.startswith("slice:")]
    # What no rule could name goes no further: decisions are kept for ever, free text of strangers is not.
    named = all(re.fullmatch(words.WORD, word) for word in (*actions, *slices))
    if len(actions) > 1 or len(slices) > 1 or not named:
        raise OAuthRefused("invalid_scope", "A scope is one action and at most one slice:<name>.")
    return Ask(slug, actions[0] if actions else "read", slices[0] if slices else None, _KIND)


def _refused(error: GuestkeyError) -> OAuthRefused:
    code, status = next(
        ((code, status) for kind, code, status in _ERRORS if isinstance(error, kind)), ("invalid_request", 400)
    )
    return OAuthRefused(code, _said(error), status=status)


def _said(error: GuestkeyError) -> str:
    if isinstance(error, Denied):
        return " ".join(f"{reason.code}: {reason.sentence} {reason.advice}" for reason in error.decision.reasons)
    return f"{error.detail} {error.advice}".strip()


def _claims(parts: Parts, issuer: str, token: str) -> dict[str, Any] | None:
    key_set = KeySet.import_key_set({"keys": signing_keys.public_jwks(parts.vault)})
    try:
        decoded = jwt.decode(token, key_set, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if decoded.header.get("typ") != HEADER_TYPE or decoded.claims.get("iss") != issuer:
        return None
    return dict(decoded.claims)
