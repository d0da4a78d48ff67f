"""Signing in: out to the provider, bound to one browser, and back as a session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import delete

from broker.database import now as clock
from broker.errors import Invalid, NotSignedIn
from broker.identity import admitting, invitations, oidc, sources
from broker.identity.admitting import Arrival, Visitor
from broker.identity.oidc import Client, Expected, Providers
from broker.identity.secret_tokens import digest, fresh_token, is_token
from broker.models import Person, SignInAttempt, SignInSource
from broker.parts import Parts

__all__ = ["Arrival", "Departure", "Visitor", "arrive", "check_single", "depart", "depart_invited", "safe_path"]

ATTEMPT_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Departure:
    """Where to send the browser, and the cookie that binds the sign-in to it."""

    url: str
    browser_token: str = field(repr=False)


def depart(
    parts: Parts, providers: Providers, source_id: str, *, next_path: str = "/", browser_token: str = ""
) -> Departure:
    """Begin a sign-in at a source.

    Args:
        browser_token: what binds this browser already, so that two tabs may sign in at once; else a new one is made.

    Raises:
        NotFound: the source is not valid.
        BackendDown: the provider or the key store does not answer.
    """
    with parts.database.transaction() as tx:
        source = sources.active(tx, source_id)
    return _depart(parts, providers, source, None, next_path, browser_token)


def depart_invited(
    parts: Parts, providers: Providers, token: str, purpose: str, *, next_path: str = "/", browser_token: str = ""
) -> Departure:
    """Begin the sign-in that an invitation (`join` or `enrol_factor`) is bound to, where it says.

    Raises:
        NotFound: the link is not valid, or its source is closed.
        BackendDown: as for `depart`.
    """
    with parts.database.transaction() as tx:
        invitation = invitations.pending(tx, token, purpose, clock(tx))
        source_id = invitation.source_id
        if source_id is None and invitation.person_id is not None:
            source_id = tx.get_one(Person, invitation.person_id).source_id
        source = sources.active(tx, source_id or "")
    return _depart(parts, providers, source, invitation.id, next_path, browser_token)


def _depart(
    parts: Parts,
    providers: Providers,
    source: SignInSource,
    invitation_id: str | None,
    next_path: str,
    browser_token: str,
) -> Departure:
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
                invitation_id=invitation_id,
                asked_acr=acr_values,
                next_path=safe_path(next_path),
                expires_at=clock(tx) + ATTEMPT_LIFETIME,
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
        return admitting.admit(tx, source, attempt, claims, visitor, lifetime=parts.settings.session_lifetime)


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


def _client(parts: Parts, source: SignInSource) -> Client:
    redirect_uri = str(parts.settings.public_url).rstrip("/") + "/sign-in/callback"
    return Client(source.issuer, source.client_id, sources.client_secret(parts.vault, source), redirect_uri)


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
