"""Sign-in sources: which OIDC issuers, clients and claims stand for which party. Binding one takes two admins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Select, select, update

from broker.base.database import Transaction, one_at_a_time
from broker.base.errors import BackendDown, Conflict, Forbidden, Invalid, NotFound
from broker.base.ids import is_id, new_id
from broker.base.settings import Settings
from broker.identity import provider_http, sessions
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Menu, Noun
from broker.identity.permissions import everything_or_nothing, require_reader, sees_everything
from broker.keystore.vault import Vault, VaultRefused
from broker.log import audit
from broker.models import Proposal, SignInSource, Vendor

log = structlog.get_logger(__name__)

SOURCES = Noun(
    "source",
    "sources",
    "ss",
    SignInSource,
    about="Sign-in sources.",
    menu=Menu("Sign-in sources", sees_everything),
    display=Display(
        columns="id!, name, vendor!, status, issuer!, trusts its second factor=trusts_mfa, sign in at=sign_in_link!",
        none="No sources.",
    ),
    seen=everything_or_nothing,
    check=lambda _, caller: require_reader(caller),
    called=SignInSource.name,
    events={
        "source.bound": "{who} added the sign-in source {whom}.",
        "source.disabled": "{who} disabled the sign-in source {whom}.",
        "source.mfa_trusted": "{who} and {proposed_by} trusted the second factor of the sign-in source {whom}.",
    },
)

_MOST_CLAIMS = 10


def check_issuer(issuer: str) -> str:
    """The issuer, if it may be one (OpenID Connect Discovery 1.0, section 2): https, no query, no fragment.

    Raises:
        Invalid: it may not; plain http is for loopback only.
    """
    if not provider_http.is_acceptable_url(issuer) or "?" in issuer or len(issuer) > 500:
        raise Invalid("An issuer is an https address without query or fragment.", field="/issuer")
    return issuer


def check_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Required claims, if they can be compared exactly.

    Raises:
        Invalid: they cannot.
    """
    if len(claims) > _MOST_CLAIMS:
        raise Invalid(f"At most {_MOST_CLAIMS} claims can be required.", field="/required_claims")
    for name, value in claims.items():
        if not _plain(name, 200) or not _comparable(value):
            raise Invalid("A required claim is a text, a whole number, or true or false.", field="/required_claims")
    return dict(claims)


def _plain(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable()


def _comparable(value: object) -> bool:
    if isinstance(value, str):
        return _plain(value, 500)
    # Larger numbers have no one canonical form in JSON.
    return isinstance(value, int) and abs(value) < 2**53


def wrap_client_secret(vault: Vault, source_id: str, secret: str) -> str:
    """The client secret as it is kept: wrapped by transit, bound to this source."""
    return vault.encrypt("sources", secret.encode(), context=source_id)


def client_secret(vault: Vault, source: SignInSource) -> str | None:
    """The client secret of a source, None for public clients."""
    if source.wrapped_client_secret is None:
        return None
    try:
        return vault.decrypt("sources", source.wrapped_client_secret, context=source.id).decode()
    except VaultRefused as error:
        log.error("source.unreadable", source=source.id)
        raise BackendDown("This sign-in source cannot be used now.", backend="openbao") from error


def matches(source: SignInSource, claims: Mapping[str, Any]) -> bool:
    """Whether an ID token's claims are those of this source; a list claim matches if it contains the value."""
    for name, wanted in source.required_claims.items():
        held = claims.get(name)
        if isinstance(held, list):
            if not any(type(item) is type(wanted) and item == wanted for item in held):
                return False
        elif type(held) is not type(wanted) or held != wanted:
            return False
    return True


def siblings(tx: Transaction, source: SignInSource) -> Sequence[SignInSource]:
    """Every active source of the same issuer and client: which one a person belongs to, the claims say.

    Locked, so that none is closed between this look and the session that rests on it.
    """
    return tx.scalars(_of_client(source.issuer, source.client_id).with_for_update(read=True)).all()


def claims_that_decide(tx: Transaction, source: SignInSource) -> frozenset[str]:
    """Names of the claims that tell apart the sources of one issuer and client."""
    found = tx.scalars(_of_client(source.issuer, source.client_id))
    return frozenset(name for one in found for name in one.required_claims)


def _of_client(issuer: str, client_id: str) -> Select[SignInSource]:
    """The active sources of one issuer and client."""
    same = (SignInSource.issuer == issuer, SignInSource.client_id == client_id)
    return select(SignInSource).where(*same, SignInSource.status == "active")


def shown_to_strangers(tx: Transaction) -> list[SignInSource]:
    """The sources a visitor may choose from: the organisation's. A vendor's own issuer would name the vendor."""
    own = select(SignInSource).where(SignInSource.vendor_id.is_(None), SignInSource.status == "active")
    distinct = {(source.issuer, source.client_id): source for source in tx.scalars(own.order_by(SignInSource.id))}
    return list(distinct.values())


def sign_in_link(settings: Settings, source_id: str) -> str:
    """What a source's people open or bookmark: no page lists vendors' sources."""
    return f"{str(settings.public_url).rstrip('/')}/sign-in/{source_id}"


def find_active(tx: Transaction, source_id: str) -> SignInSource | None:
    """An active source by id, or None."""
    source = tx.get(SignInSource, source_id) if is_id(source_id) else None
    return source if source is not None and source.status == "active" else None


def active(tx: Transaction, source_id: str) -> SignInSource:
    """An active source by id.

    Raises:
        NotFound: there is none.
    """
    source = find_active(tx, source_id)
    if source is None:
        raise NotFound("There is no such sign-in source.", advice="Open the link you were sent again.")
    return source


def disable(tx: Transaction, caller: Caller, source_id: str, now: datetime) -> None:
    """Close a source and end what was signed in through it. One admin is enough: it only takes away.

    Raises:
        Forbidden, NotFound
    """
    if not caller.is_admin:
        raise Forbidden("Only an admin can disable a sign-in source.")
    still = (SignInSource.id == active(tx, source_id).id, SignInSource.status == "active")
    if tx.scalar(update(SignInSource).where(*still).values(status="disabled").returning(SignInSource.id)) is None:
        raise NotFound("There is no such active sign-in source.")
    sessions.end_matching(tx, lambda record: record.source_id == source_id, now, cause="source_disabled")
    audit.record(tx, "source.disabled", actor=caller.subject, subject=source_id, now=now)


def check_alone(tx: Transaction, issuer: str, client_id: str, claims: Mapping[str, Any]) -> None:
    """Refuse a source beside another that the same person could match: neither would let anybody in.

    Raises:
        Conflict: naming the other.
    """
    for other in tx.scalars(_of_client(issuer, client_id)):
        common = claims.keys() & other.required_claims.keys()
        if not any(claims[name] != other.required_claims[name] for name in common):
            raise Conflict(
                f"“{other.name}” has the same issuer and client: who matches both could sign in through neither.",
                advice="Require a claim with a different value in each, or register another client.",
            )


def check_audiences(audiences: Sequence[str], client_id: str) -> list[str]:
    """Audiences that ID tokens may be for beside us.

    Raises:
        Invalid: one is none, or there are too many.
    """
    if len(audiences) > _MOST_CLAIMS or not all(_plain(one, 500) for one in audiences):
        raise Invalid(f"At most {_MOST_CLAIMS} other audiences, each plain text.", field="/other_audiences")
    # We ourselves are one anyway.
    return [one for one in dict.fromkeys(audiences) if one != client_id]


def bind_source(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `bind_source`. Its details hold the record's columns, secret wrapped."""
    details = agreed.details
    vendor_id = details["vendor_id"]
    if vendor_id is not None and tx.get(Vendor, vendor_id) is None:
        raise NotFound("There is no such vendor.")
    if tx.scalars(select(SignInSource.id).where(SignInSource.name == details["name"])).first():
        raise Conflict("A sign-in source with that name already exists.")
    # Two proposals bound at once must not pass each other.
    one_at_a_time(tx, f"source {details['issuer']} {details['client_id']}")
    check_alone(tx, details["issuer"], details["client_id"], details["required_claims"])
    source = SignInSource(
        id=details["id"],
        name=details["name"],
        issuer=check_issuer(details["issuer"]),
        client_id=details["client_id"],
        wrapped_client_secret=details["wrapped_client_secret"],
        required_claims=check_claims(details["required_claims"]),
        vendor_id=vendor_id,
        mfa_values=[],
        # Left out by proposals made before there were any.
        other_audiences=check_audiences(details.get("other_audiences", []), details["client_id"]),
    )
    tx.add(source)
    tx.flush()
    said = {"issuer": source.issuer, "vendor": vendor_id, "proposed_by": agreed.proposed_by}
    audit.record(tx, "source.bound", actor=agreed.approver, subject=source.id, now=now, details=said)


def trust_source_mfa(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of `trust_source_mfa`: this source's own second factor counts when it answers these values."""
    source = active(tx, agreed.details["source_id"])
    source.trusts_mfa, source.mfa_values = True, list(agreed.details["mfa_values"])
    said = {"values": source.mfa_values, "proposed_by": agreed.proposed_by}
    audit.record(tx, "source.mfa_trusted", actor=agreed.approver, subject=source.id, now=now, details=said)


def new_source_id() -> str:
    """An id for a source that is only proposed yet: its client secret is wrapped for it at once."""
    return new_id("ss")
