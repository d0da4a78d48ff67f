"""Authorization codes for the command line (RFC 6749 4.1, RFC 7636, RFC 8252): 60 seconds, once, S256 only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from sqlalchemy import update

from broker.base.database import Transaction
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.identity.secret_tokens import API_TOKEN_PREFIX, digest, fresh_token
from broker.log import audit
from broker.models import ApiToken, AuthorizationCode, Person, Session, Vendor
from broker.oauth.refusals import AuthorizationRefused, OAuthRefused

CLIENT_ID = "guestkey-cli"
CODE_LIFETIME = timedelta(seconds=60)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
# A native client's own address (RFC 8252, 7.3): loopback, any port. As a whole and by the letter: what parsers make
# of tabs, user names and empty queries never matters.
_CALLBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}/callback")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A checked authorization request of the command line."""

    redirect_uri: str
    state: str
    code_challenge: str


def check_request(parameters: dict[str, str], issuer: str) -> AuthorizationRequest:
    """Check an authorization request.

    Raises:
        OAuthRefused: shown on a page of ours: nothing is sent to an address that may not be the client's.
        AuthorizationRefused: sent to the client, whose address is right.
    """
    if parameters.get("client_id") != CLIENT_ID:
        raise OAuthRefused("invalid_client", f"The only client here is {CLIENT_ID}.")
    redirect_uri = parameters.get("redirect_uri", "")
    if _CALLBACK.fullmatch(redirect_uri) is None:
        raise OAuthRefused("invalid_request", "redirect_uri must be http://127.0.0.1:<port>/callback.")
    state, challenge = parameters.get("state", ""), parameters.get("code_challenge", "")
    if (wrong := _wrong(parameters)) is not None:
        raise AuthorizationRefused(*wrong, redirect_uri=redirect_uri, state=state, issuer=issuer)
    return AuthorizationRequest(redirect_uri, state, challenge)


def _wrong(parameters: dict[str, str]) -> tuple[str, str] | None:
    """What is wrong with a request of the right client from its right address: OAuth's code, and a description."""
    if not parameters.get("response_type"):
        return "invalid_request", "response_type is missing; only code is served."
    if parameters["response_type"] != "code":
        return "unsupported_response_type", "Only response_type=code is served."
    if parameters.get("response_mode", "query") != "query":
        return "invalid_request", "Only response_mode=query is served."
    challenge, state = parameters.get("code_challenge", ""), parameters.get("state", "")
    if parameters.get("code_challenge_method") != "S256" or _CHALLENGE.fullmatch(challenge) is None:
        return "invalid_request", "PKCE with code_challenge_method=S256 is required."
    if not 8 <= len(state) <= 512 or not state.isprintable():
        return "invalid_request", "A state of 8 to 512 characters is required."
    return None


def make_code(
    tx: Transaction, wish: AuthorizationRequest, session_id: str, caller: Caller, issuer: str, now: datetime
) -> str:
    """Make a code for the session's person; returns the address that hands it to the command line."""
    code = fresh_token()
    tx.add(
        AuthorizationCode(
            code_hash=digest(code),
            client_id=CLIENT_ID,
            redirect_uri=wish.redirect_uri,
            code_challenge=wish.code_challenge,
            session_id=session_id,
            expires_at=now + CODE_LIFETIME,
        )
    )
    audit.record(tx, "code.made", actor=caller.subject, subject=session_id, now=now, details={"client": CLIENT_ID})
    return _answer(wish, issuer, code=code)


def denial_redirect(wish: AuthorizationRequest, issuer: str) -> str:
    """The address that tells the command line that the person said no (RFC 6749, 4.1.2.1)."""
    return _answer(wish, issuer, error="access_denied", error_description="You declined in the browser.")


def _answer(wish: AuthorizationRequest, issuer: str, **members: str) -> str:
    # The issuer is named so that a code can never be handed to another server's token endpoint (RFC 9207).
    return f"{wish.redirect_uri}?{urlencode({**members, 'state': wish.state, 'iss': issuer})}"


def redeem(
    tx: Transaction, client_id: str, parameters: dict[str, str], lifetime: int, now: datetime
) -> tuple[str, int] | OAuthRefused:
    """Turn a code into an opaque access token. Returns token and seconds, or the refusal to raise after commit.

    Args:
        client_id: the client as it named itself, in the form or by HTTP Basic; another's code stays as it is.
        lifetime: the longest a token lives, in seconds; one never outlives the session that allowed it.

    A code that comes a second time also ends the token it gave (RFC 6749, 4.1.2): one of the two is a thief.
    """
    refusal = OAuthRefused("invalid_grant", "The code is not valid, or was used.")
    code = tx.get(AuthorizationCode, digest(parameters.get("code", "")), with_for_update=True)
    if code is None or client_id != code.client_id:
        return refusal
    if code.used_at is not None:
        _end_stolen(tx, code, now)
        return refusal
    code.used_at = now
    right = (
        code.expires_at > now
        and parameters.get("redirect_uri") == code.redirect_uri
        and _proves(parameters.get("code_verifier", ""), code.code_challenge)
    )
    session = tx.get_one(Session, code.session_id)
    if not right or not _session_is_live(tx, session, now):
        return refusal
    token = fresh_token(API_TOKEN_PREFIX)
    # What a session allows ends with it at the latest: a copied cookie gives no more time than it has itself.
    expires_at = min(now + timedelta(seconds=lifetime), session.expires_at)
    record = ApiToken(
        id=new_id("at"),
        token_hash=digest(token),
        person_id=session.person_id,
        source_id=session.source_id,
        session_id=session.id,
        client_id=CLIENT_ID,
        last_seen_at=now,
        expires_at=expires_at,
        # The person sits at this browser: what was proven there minutes ago was proven by who asks here.
        factor_at=session.factor_at,
        factor_method=session.factor_method,
    )
    tx.add(record)
    tx.flush()
    code.token_id = record.id
    audit.record(
        tx,
        "token.issued",
        actor=f"person:{session.person_id}",
        subject=record.id,
        now=now,
        details={"client": CLIENT_ID, "session": session.id},
    )
    return token, max(1, int((expires_at - now).total_seconds()))


def _end_stolen(tx: Transaction, code: AuthorizationCode, now: datetime) -> None:
    if code.token_id is None:
        return
    tx.execute(
        update(ApiToken)
        .where(ApiToken.id == code.token_id, ApiToken.ended_at.is_(None))
        .values(ended_at=now, end_cause="code_replayed")
    )
    audit.record(tx, "code.replayed", actor=audit.SYSTEM, subject=code.token_id, now=now)


def _session_is_live(tx: Transaction, session: Session, now: datetime) -> bool:
    # Locked: who is being suspended either waits for the new token and ends it, or is seen here as suspended.
    person = tx.get_one(Person, session.person_id, with_for_update={"read": True})
    vendor = tx.get(Vendor, person.vendor_id, with_for_update={"read": True}) if person.vendor_id else None
    # So is the session, after its person as everywhere: whoever signs it out ends the new token, too, or is seen here.
    tx.refresh(session, with_for_update={"read": True})
    live = session.ended_at is None and session.expires_at > now and person.status == "active"
    return live and (vendor is None or vendor.status in ("active", "onboarding"))


def _proves(verifier: str, challenge: str) -> bool:
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    computed = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    return hmac.compare_digest(computed, challenge)
