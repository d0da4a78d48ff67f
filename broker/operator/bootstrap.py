"""`guestkey bootstrap` and `guestkey recover`: the first admins, and the way back in. Run by hand on the server."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import select, update

from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid, NotFound
from broker.base.ids import new_id
from broker.identity import invitations, login, sources
from broker.identity.oidc import OidcClient
from broker.log import audit
from broker.models import Installation, SignInSource
from broker.operator.console import CommandOutput, load
from broker.registry import source_proposals
from broker.registry.source_proposals import NewSource, SourceFinding
from broker.runtime.parts import Parts, install

RECOVERED_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """The two admins' joining links, and what the provider was found to be; nothing if it was not asked."""

    links: list[str] = field(repr=False)
    found: list[SourceFinding]


def bootstrap_and_print(out: CommandOutput, first: NewSource, *, unchecked: bool) -> None:
    """Set the installation up and print what its provider says and the two admins' joining links, once."""
    with closing(Parts.build(load(), identity="issuer")) as parts:
        result = bootstrap(parts, first, unchecked=unchecked)
    found = [finding.told for finding in result.found] or [
        "The provider was not tested. Once it is running: guestkey source check"
    ]
    said = "Two admins join with these links. Each works once; give each link to a different person:"
    told = [{"what": finding.what, "ok": finding.ok, "told": finding.told} for finding in result.found]
    out.result([*found, said, *result.links], {"links": result.links, "findings": told})


def recover_and_print(out: CommandOutput, source_id: str | None) -> None:
    """Print one joining link for an admin of one hour; every admin is told."""
    with closing(Parts.build(load(), identity="issuer")) as parts:
        link = recover(parts, source_id)
    said = "The person who opens this link within an hour is an admin for that hour. All admins are notified:"
    out.result([said, link], {"link": link})


def bootstrap(parts: Parts, first: NewSource, *, unchecked: bool = False) -> BootstrapResult:
    """Set the installation up: tag, rules, the organisation's source, and two single-use invitations for admins.

    Works once. The source's provider is tried before anything is written.

    Args:
        unchecked: the provider is not asked: it is not up yet.

    Raises:
        Conflict: it was done before.
        Invalid: issuer, client or claims cannot be used, or the provider would let nobody in.
    """
    source_id = sources.new_source_id()
    issuer, claims = sources.check_issuer(first.issuer), sources.check_claims(first.required_claims)
    with parts.database.transaction() as tx:
        if tx.execute(select(Installation.bootstrapped_at)).scalar_one_or_none() is not None:
            raise _done_before()
    found = [] if unchecked else _check_provider(parts, first)
    wrapped = sources.wrap_client_secret(parts.vault, source_id, first.client_secret) if first.client_secret else None
    with parts.database.transaction_now() as (tx, now):
        install(tx, now)
        untouched = update(Installation).where(Installation.bootstrapped_at.is_(None))
        once = tx.execute(untouched.values(bootstrapped_at=now).returning(Installation.tag)).first()
        if once is None:
            raise _done_before()
        source = SignInSource(
            id=source_id,
            name=first.name,
            issuer=issuer,
            client_id=first.client_id,
            wrapped_client_secret=wrapped,
            required_claims=claims,
            vendor_id=None,
            mfa_values=[],
        )
        tx.add(source)
        tx.flush()
        audit.record(tx, "source.bound", actor=audit.SYSTEM, subject=source_id, now=now, details={"issuer": issuer})
        lifetime = parts.settings.invitation_lifetime
        links = [
            invitations.join_link(
                parts, invitations.invite_admin(tx, source, lifetime, now, label=label, role_until=None)
            )
            for label in ("first admin", "second admin")
        ]
    return BootstrapResult(links, found)


def _check_provider(parts: Parts, first: NewSource) -> list[SourceFinding]:
    client = OidcClient(first.issuer, first.client_id, first.client_secret, login.callback(parts.settings))
    try:
        return source_proposals.require_usable(parts.settings, client)
    except Invalid as error:
        way_past = "If it is not running yet, use --unchecked now and `guestkey source check` later."
        raise Invalid(error.detail, field=error.field, advice=f"{error.advice} {way_past}") from error


def _done_before() -> Conflict:
    return Conflict(
        "This installation already has its first admins.", advice="If they are locked out, use `guestkey recover`."
    )


def recover(parts: Parts, source_id: str | None = None) -> str:
    """Break the glass: one invitation for an admin whose role lasts an hour. Every admin is told.

    Raises:
        NotFound: there is no active source of the organisation.
    """
    with parts.database.transaction_now() as (tx, now):
        source = _own_source(tx, source_id)
        until = now + RECOVERED_FOR
        lifetime = int(RECOVERED_FOR.total_seconds())
        token = invitations.invite_admin(tx, source, lifetime, now, label="recovery", role_until=until)
        details = {"source": source.id, "until": until.isoformat()}
        audit.record(tx, "recovery.begun", actor=audit.SYSTEM, subject=new_id("re"), now=now, details=details)
        return invitations.join_link(parts, token)


def _own_source(tx: Transaction, source_id: str | None) -> SignInSource:
    query = select(SignInSource).where(SignInSource.vendor_id.is_(None), SignInSource.status == "active")
    if source_id is not None:
        query = query.where(SignInSource.id == source_id)
    source = tx.scalars(query.order_by(SignInSource.id).limit(1)).one_or_none()
    if source is None:
        raise NotFound("The organisation has no active sign-in source.", advice="Name one with --source, or add one.")
    return source


def required_claims(texts: list[str]) -> dict[str, str]:
    """What every sign-in must carry, from the options that say so.

    Raises:
        Invalid: one is not NAME=VALUE.
    """
    claims = dict(text.partition("=")[::2] for text in texts)
    if len(claims) != len(texts) or not all(name and value for name, value in claims.items()):
        raise Invalid("A required claim is NAME=VALUE, each name once.", field="/claim")
    return claims
