"""Services proving themselves with their client secret (RFC 6749, 2.3.1), and the tokens they get for it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from starlette.requests import Request

from broker.base.database import Transaction, clock
from broker.base.errors import NotSignedIn
from broker.base.ids import is_id
from broker.identity import sessions
from broker.identity.caller import Caller, FoundCaller
from broker.identity.http import find_caller
from broker.identity.permissions import is_own_service
from broker.oauth.refusals import OAuthRefused
from broker.registry import services
from broker.runtime.parts import Parts

TOKEN_LIFETIME = 900
_METHODS = "Use HTTP Basic (client_secret_basic) or form fields (client_secret_post)."


@dataclass(frozen=True, slots=True)
class AuthenticatedService:
    """A service that has shown its secret, and the hash that secret was checked against."""

    caller: Caller
    secret_hash: str = field(repr=False)


def authenticated(parts: Parts, request: Request, form: dict[str, str]) -> AuthenticatedService:
    """The service behind Basic credentials or form fields.

    Raises:
        OAuthRefused: `invalid_client`, whatever is wrong: it takes as long and reads the same.
        BackendDown: too many secrets are being checked already.
    """
    client_id, secret = _credentials(request, form)
    known = client_id if is_id(client_id) else ""
    with parts.database.transaction() as tx:
        kept = services.secret_hash_of(tx, known)
    if not services.verify_secret(kept, secret) or kept is None:
        with parts.database.transaction() as tx:
            services.note_secret_refused(tx, known, request.client.host if request.client else "", clock(tx))
        raise _unknown_client()
    with parts.database.transaction() as tx:
        service, now = services.recognised(tx, known), clock(tx)
    caller = Caller(
        kind="service",
        id=service.id,
        name=service.name,
        vendor_id=service.vendor_id,
        holder_id=service.id,
        how="api_token",
        signed_in_at=now,
        address=request.client.host if request.client else None,
    )
    # From now on these Basic credentials spend the service's own rate, not its address's.
    request.state.found = FoundCaller(caller, service.status, "", None, now)
    return AuthenticatedService(caller, kept)


def public_client(request: Request, form: dict[str, str]) -> str:
    """The id of a client without a secret, from the form or the user name of HTTP Basic; for the code's exchange.

    Raises:
        OAuthRefused: `invalid_client`: none or two are named, it brings a secret, or a method that is not served.
    """
    client_id, secret = _credentials(request, form)
    if not client_id:
        raise OAuthRefused("invalid_client", "client_id is missing.", status=401)
    if secret:
        raise OAuthRefused("invalid_client", "This client has no secret; send its client_id alone.", status=401)
    return client_id


def introspecting(parts: Parts, request: Request, form: dict[str, str]) -> Caller:
    """Who asks about tokens: a service of the organisation.

    Raises:
        OAuthRefused: it is nobody known, a person, or a vendor's service.
    """
    caller = recognised(parts, request, form)
    if not is_own_service(caller):
        raise OAuthRefused("unauthorized_client", "Only services of the organisation introspect.", status=403)
    return caller


def recognised(parts: Parts, request: Request, form: dict[str, str]) -> Caller:
    """Who asks, by a service's secret or by an API token it got for it.

    A token costs a look-up where a secret costs an argon2 hash: who introspects often brings a token (RFC 7662, 2.1).

    Raises:
        OAuthRefused: it is nobody known.
    """
    if request.headers.get("authorization", "").lower().startswith("bearer "):
        try:
            return find_caller(request).caller
        except NotSignedIn as error:
            raise OAuthRefused("invalid_token", "The token is unknown, or has ended.", status=401) from error
    return authenticated(parts, request, form).caller


def issue_api_token(tx: Transaction, proven: AuthenticatedService) -> tuple[str, int]:
    """An opaque token for the API, a quarter of an hour long. Returns token and seconds.

    Raises:
        OAuthRefused: the service was suspended, or its secret replaced, while the secret was being checked.
    """
    caller = proven.caller
    if services.secret_hash_of(tx, caller.id, locking=True) != proven.secret_hash:
        raise _unknown_client()
    return sessions.issue_to_service(tx, caller, TOKEN_LIFETIME, clock(tx)), TOKEN_LIFETIME


def _unknown_client() -> OAuthRefused:
    return OAuthRefused("invalid_client", "The client is unknown, or its secret is wrong.", status=401)


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    headers = request.headers.getlist("authorization")
    if "client_assertion" in form or "client_assertion_type" in form:
        raise OAuthRefused("invalid_client", f"client_assertion is not served. {_METHODS}", status=401)
    if not headers:
        return form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, encoded = headers[0].partition(" ")
    if len(headers) != 1 or (scheme.lower() == "basic" and "client_secret" in form):
        raise OAuthRefused("invalid_request", "Authenticate in one way: HTTP Basic, or form fields.")
    if scheme.lower() != "basic":
        raise OAuthRefused("invalid_client", f"This scheme is not served. {_METHODS}", status=401)
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError as error:
        raise OAuthRefused("invalid_client", "The Authorization header cannot be read.", status=401) from error
    client_id, secret = unquote_plus(client_id), unquote_plus(secret)
    if form.get("client_id", client_id) != client_id:
        raise OAuthRefused("invalid_request", "The form names another client than the Authorization header.")
    return client_id, secret
