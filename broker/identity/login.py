"""Signing in: out to the provider, bound to one browser, and back as a session."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, delete, select

from broker.base.database import clock
from broker.base.errors import Invalid
from broker.base.settings import Settings
from broker.identity import faults, invitations, oidc, sign_in_admission, sources
from broker.identity.faults import SignInRefused, quoted
from broker.identity.oidc import ExpectedResponse, OidcClient
from broker.identity.providers import Providers
from broker.identity.secret_tokens import digest, fresh_token, is_token
from broker.identity.sign_in_admission import BrowserInfo, StartedSession
from broker.models import Person, SignInAttempt, SignInSource
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
ATTEMPT_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class AuthorizationRedirect:
    """Where to send the browser, and the cookie that binds the sign-in to it."""

    url: str
    browser_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignInRoute:
    """The source a sign-in goes by, and the invitation behind it, if any. Found in the records alone."""

    source: SignInSource
    invitation_id: str | None = None


def route_by_source(parts: Parts, source_id: str) -> SignInRoute:
    """The way by a source.

    Raises:
        NotFound: the source is not valid.
    """
    with parts.database.transaction() as tx:
        return SignInRoute(sources.active(tx, source_id))


def route_by_invitation(parts: Parts, token: str, purpose: str) -> SignInRoute:
    """The way that an invitation (`join` or `enrol_factor`) is bound to.

    Raises:
        NotFound: the link is not valid, or its source is closed.
    """
    with parts.database.transaction() as tx:
        invitation = invitations.pending(tx, token, purpose, clock(tx))
        source_id = invitation.source_id
        if source_id is None and invitation.person_id is not None:
            source_id = tx.get_one(Person, invitation.person_id).source_id
        return SignInRoute(sources.active(tx, source_id or ""), invitation.id)


def route_of_callback(parts: Parts, answer: Mapping[str, str], browser_token: str) -> SignInRoute:
    """The way that a browser comes back by. Uses nothing up: whoever is told to wait can come again.

    Raises:
        SignInRefused: this browser is not on its way.
    """
    with parts.database.transaction() as tx:
        begun = select(SignInAttempt).where(*_attempt_by_state(answer.get("state", ""), browser_token))
        attempt = tx.scalars(begun).one_or_none()
        if attempt is None:
            raise _unknown_attempt()
        return SignInRoute(tx.get_one(SignInSource, attempt.source_id), attempt.invitation_id)


def begin_sign_in(
    parts: Parts, providers: Providers, way: SignInRoute, *, next_path: str = "/", browser_token: str = ""
) -> AuthorizationRedirect:
    """Begin a sign-in. Asks the provider, which may take its time.

    Args:
        browser_token: what binds this browser already, so that two tabs may sign in at once; else a new one is made.

    Raises:
        ProviderDown: the provider does not answer.
        BackendDown: the key store does not.
    """
    source = way.source
    state, browser_token = fresh_token(), browser_token if is_token(browser_token) else fresh_token()
    expected = _expected_response(parts, browser_token, state)
    acr_values = " ".join(source.mfa_values) if source.trusts_mfa else None
    with faults.recording_failures(parts, source):
        url = oidc.authorization_url(providers, client_of(parts, source), expected, state, acr_values=acr_values)
    with parts.database.transaction() as tx:
        tx.add(
            SignInAttempt(
                state_hash=digest(state),
                browser_hash=digest(browser_token),
                source_id=source.id,
                invitation_id=way.invitation_id,
                asked_acr=acr_values,
                next_path=safe_path(next_path),
                expires_at=clock(tx) + ATTEMPT_LIFETIME,
            )
        )
    return AuthorizationRedirect(url, browser_token)


def complete_sign_in(
    parts: Parts, providers: Providers, answer: Mapping[str, str], browser_token: str, visitor: BrowserInfo
) -> StartedSession:
    """Finish a sign-in with what the provider sent the browser back with. Asks the provider, which may take its time.

    Args:
        answer: the callback's parameters, each given once: `code`, `state`, perhaps `iss` or `error`.

    Raises:
        NotSignedIn: anything is not as it was bound, or nobody here is that person.
        ProviderDown: the provider does not answer.
    """
    attempt = _consume(parts, answer.get("state", ""), browser_token)
    with parts.database.transaction() as tx:
        source = tx.get_one(SignInSource, attempt.source_id)
        wanted = sources.claims_that_decide(tx, source)
    with faults.recording_failures(parts, source):
        oidc.check_callback_issuer(providers, source.issuer, answer.get("iss"))
        if "error" in answer or not answer.get("code"):
            raise _provider_refusal(answer)
        expected = _expected_response(parts, browser_token, answer["state"])
        with parts.database.transaction() as tx:
            now = clock(tx)
        claims = oidc.exchange(providers, client_of(parts, source), expected, answer["code"], now, wanted)
        with parts.database.transaction() as tx:
            return sign_in_admission.start_session_for(
                tx, source, attempt, claims, visitor, lifetime=parts.settings.session_lifetime
            )


def _provider_refusal(answer: Mapping[str, str]) -> SignInRefused:
    """The provider's own no. What it says comes by way of the browser: it is shown to admins, as what it is."""
    said = [quoted(answer.get(name)) for name in ("error", "error_description")]
    why = ": ".join(filter(None, said)) or "without a code and without an error"
    return SignInRefused(
        f"The provider sent the browser back with: {why}.", detail="The identity provider refused the sign-in."
    )


def _expected_response(parts: Parts, browser_token: str, state: str) -> ExpectedResponse:
    # Derived from the browser's cookie, of which only a hash is kept: neither a copy of the records nor the address
    # that comes back, which holds code and state, is enough to redeem the code.
    nonce, verifier = (
        hmac.new(browser_token.encode(), f"{purpose}:{state}".encode(), hashlib.sha256).hexdigest()
        for purpose in ("nonce", "verifier")
    )
    return ExpectedResponse(nonce, verifier, parts.settings.login_max_age)


def safe_path(path: str) -> str:
    """A path of ours to go to afterwards; anything that could lead elsewhere becomes the home page."""
    local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if local and path.isprintable() and len(path) <= 2000 else "/"


def _consume(parts: Parts, state: str, browser_token: str) -> SignInAttempt:
    """Take the attempt out of the records: a second callback with the same state finds nothing."""
    with parts.database.transaction() as tx:
        begun = delete(SignInAttempt).where(*_attempt_by_state(state, browser_token))
        attempt = tx.scalars(begun.returning(SignInAttempt)).one_or_none()
        if attempt is None or attempt.expires_at <= clock(tx):
            raise _unknown_attempt()
        tx.expunge(attempt)
        return attempt


def _attempt_by_state(state: str, browser_token: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    if not is_token(state) or not is_token(browser_token):
        raise _unknown_attempt()
    return SignInAttempt.state_hash == digest(state), SignInAttempt.browser_hash == digest(browser_token)


def _unknown_attempt() -> SignInRefused:
    error = SignInRefused("This browser has no sign-in in progress, or it took longer than ten minutes.")
    log.info("sign_in.astray", why=error.reason)
    return error


def client_of(parts: Parts, source: SignInSource) -> OidcClient:
    """Our registration at a source's provider.

    Raises:
        BackendDown: the key store does not answer.
    """
    secret, back = sources.client_secret(parts.vault, source), callback(parts.settings)
    return OidcClient(source.issuer, source.client_id, secret, back, tuple(source.other_audiences))


def callback(settings: Settings) -> str:
    """Where providers send browsers back to; registered there."""
    return str(settings.public_url).rstrip("/") + "/sign-in/callback"


def check_single(parameters: list[tuple[str, str]]) -> dict[str, str]:
    """Query parameters as a mapping.

    Raises:
        Invalid: one is given twice; which of them counts is a question attackers like.
    """
    found = dict(parameters)
    if len(found) != len(parameters):
        raise Invalid("A parameter was given twice.", advice="Sign in again.")
    return found
