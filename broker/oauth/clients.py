"""Services proving themselves with their client secret (RFC 6749, 2.3.1), and the tokens they get for it."""

from __future__ import annotations

import base64
import binascii
from datetime import timedelta
from urllib.parse import unquote_plus

from sqlalchemy import select
from starlette.requests import Request

from broker import audit
from broker.access import services
from broker.caller import Caller
from broker.database import Transaction
from broker.database import now as clock
from broker.identity.secret_tokens import API_TOKEN_PREFIX, digest, fresh_token
from broker.models import ApiToken, Event, Service, is_id, new_id
from broker.oauth.refusals import OAuthRefused
from broker.parts import Parts

TOKEN_LIFETIME = 900
REFUSALS_RECORDED_EVERY = timedelta(minutes=1)


def authenticated(parts: Parts, request: Request, form: dict[str, str]) -> Caller:
    """The service behind Basic credentials or form fields.

    Raises:
        OAuthRefused: `invalid_client`, whatever is wrong: it takes as long and reads the same.
    """
    client_id, secret = _credentials(request, form)
    known = client_id if is_id(client_id) else ""
    with parts.database.transaction() as tx:
        kept = services.secret_hash_of(tx, known) if known else None
    if not services.verify_secret(kept, secret):
        _note_refused(parts, known, request)
        raise OAuthRefused("invalid_client", "The client is unknown, or its secret is wrong.", status=401)
    with parts.database.transaction() as tx:
        service = tx.get_one(Service, known)
        return Caller(
            kind="service",
            id=service.id,
            name=service.name,
            vendor_id=service.vendor_id,
            holder_id=service.id,
            how="api_token",
            signed_in_at=clock(tx),
            address=request.client.host if request.client else None,
        )


def issue_api_token(tx: Transaction, caller: Caller) -> tuple[str, int]:
    """An opaque token for the API, a quarter of an hour long. Returns token and seconds."""
    token, now = fresh_token(API_TOKEN_PREFIX), clock(tx)
    record = ApiToken(
        id=new_id("at"),
        token_hash=digest(token),
        service_id=caller.id,
        client_id=caller.id,
        last_seen_at=now,
        expires_at=now + timedelta(seconds=TOKEN_LIFETIME),
    )
    tx.add(record)
    tx.flush()
    audit.record(
        tx, "token.issued", actor=caller.subject, subject=record.id, now=now, personal={"address": caller.address or ""}
    )
    return token, TOKEN_LIFETIME


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    header = request.headers.get("authorization")
    if header is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    scheme, _, encoded = header.partition(" ")
    try:
        client_id, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise OAuthRefused("invalid_client", "The Authorization header cannot be read.", status=401) from error
    if scheme.lower() != "basic" or "client_secret" in form:
        raise OAuthRefused("invalid_request", "Authenticate in one way: HTTP Basic, or form fields.")
    return unquote_plus(client_id), unquote_plus(secret)


def _note_refused(parts: Parts, service_id: str, request: Request) -> None:
    """Record a wrong secret of a service that exists; once a minute, so that strangers cannot fill the log."""
    with parts.database.transaction() as tx:
        if tx.get(Service, service_id) is None:
            return
        now, kind = clock(tx), "service.secret_refused"
        lately = select(Event.id).where(
            Event.subject == service_id, Event.kind == kind, Event.at > now - REFUSALS_RECORDED_EVERY
        )
        if tx.execute(lately.limit(1)).first() is None:
            address = request.client.host if request.client else ""
            audit.record(tx, kind, actor=audit.SYSTEM, subject=service_id, now=now, personal={"address": address})
