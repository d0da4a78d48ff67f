"""Services: programs with a client secret. The secret is random, shown once, kept as an argon2 hash (RFC 9106)."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import BackendDown, Conflict, Forbidden
from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.identity.nouns import Display, Menu, Noun
from broker.identity.permissions import is_lead, looks_after_people, missing, require_admin, services_seen
from broker.identity.secret_tokens import MOST_CHARACTERS, fresh_token
from broker.log import audit
from broker.models import ApiToken, Event, Proposal, Service, Vendor
from broker.registry import proposals
from broker.registry.approvers import datasets_of_holder
from broker.revocation import ending
from broker.runtime import chores

REFUSALS_RECORDED_EVERY = timedelta(minutes=1)
SECRET_PREFIX = "gks_"  # noqa: S105  recognisable to scanners for leaked secrets
# How long whoever proposed a rotation may carry it out once it was agreed to.
_AGREED_FOR = timedelta(hours=1)
# OWASP's least for argon2id. More would slow only us: nobody guesses 256 random bits, however fast the hash.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Verifying still costs milliseconds and megabytes: strangers must not occupy every thread with it.
_verifying = BoundedSemaphore(4)
_NOBODY = _hasher.hash(fresh_token())


SERVICES = Noun(
    "service",
    "services",
    "sv",
    Service,
    about="Programs with their own secret.",
    menu=Menu("Services", looks_after_people),
    display=Display(
        columns="id!, name, vendor!, status",
        none="No services yet. Admins and leads create them in the portal.",
    ),
    seen=services_seen,
    called=Service.name,
    plain=("resumed", "suspended"),
    events={
        "service.made": "{who} added the service {whom}.",
        "service.secret_rotated": "{who} gave the service {whom} a new secret.",
        "service.secret_refused": "{who} refused a wrong secret for the service {whom}.",
    },
)


def service(tx: Transaction, caller: Caller, service_id: str) -> Service:
    """A service the caller may manage.

    Raises:
        NotFound: there is none.
    """
    found = tx.get(Service, service_id)
    if found is None or not (caller.is_admin or is_lead(caller, found.vendor_id)):
        raise missing("service")
    return found


def make_service(
    tx: Transaction, caller: Caller, name: str, vendor_id: str | None, now: datetime
) -> tuple[Service, str]:
    """Make a service and its secret, which is returned once.

    Raises:
        Forbidden: neither an admin nor the lead of that vendor.
        NotFound: there is no such vendor.
    """
    if not (caller.is_admin or (vendor_id is not None and is_lead(caller, vendor_id))):
        raise Forbidden("Only an admin or the vendor's lead can create services.")
    if vendor_id is not None and tx.get(Vendor, vendor_id) is None:
        raise missing("vendor")
    secret = fresh_token(SECRET_PREFIX)
    made = Service(
        id=new_id("sv"),
        vendor_id=vendor_id,
        name=words.name(name, "/name"),
        secret_hash=_hasher.hash(secret),
        created_by=caller.id,
    )
    tx.add(made)
    tx.flush()
    audit.record(tx, "service.made", actor=caller.subject, subject=made.id, now=now, details={"vendor": vendor_id})
    return made, secret


def rotate_secret(
    tx: Transaction, caller: Caller, service_id: str, now: datetime, *, lifetime: timedelta = proposals.LIFETIME
) -> tuple[Service, str] | Proposal:
    """Replace the secret; the old one and every API token got for it are dead from this commit on.

    Whoever sees the new secret can read as the service. So where the service holds a grant or is asked for one, an
    admin first has the owner or a second admin agree; the vendor's lead, whose service it is, does it alone.
    Leases go on: who fears that the old secret was abused suspends the service.

    Returns:
        The service and its new secret, once; or a proposal. Once that is approved, whoever proposed it rotates.
    """
    found = service(tx, caller, service_id)
    if not is_lead(caller, found.vendor_id):
        # Orders this against grants being made: the gate locks the same row.
        tx.execute(select(Service.id).where(Service.id == found.id).with_for_update())
        datasets = datasets_of_holder(tx, service_id=found.id)
        if datasets and not _rotation_agreed(tx, caller, found, now):
            details = {"datasets": datasets, "service": found.id, "vendor": found.vendor_id}
            return proposals.propose(tx, "rotate_secret", found.id, details, caller, now, lifetime=lifetime)
    secret = fresh_token(SECRET_PREFIX)
    found.secret_hash, found.secret_rotated_at, found.secret_seen_by = _hasher.hash(secret), now, caller.id
    tx.flush()
    ending.end_tokens(tx, ApiToken.service_id == service_id, "secret_rotated", now)
    audit.record(tx, "service.secret_rotated", actor=caller.subject, subject=found.id, now=now)
    chores.at_once(tx, chores.REDECIDE)
    return found, secret


def perform_rotation(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `rotate_secret`: from now on the proposer may rotate, once, for an hour.

    Nothing is rotated here: the secret is shown to nobody but who asked for it.

    Raises:
        NotFound: there is no such service any more.
        Conflict: the service got grants on other datasets meanwhile, whose owners were not asked.
    """
    service_id = agreed.details["service"]
    if tx.get(Service, service_id) is None:
        raise missing("service")
    if not set(datasets_of_holder(tx, service_id=service_id)) <= set(agreed.details["datasets"]):
        raise Conflict(
            "The service has got more grants since this was proposed.", advice="Refuse this, and propose it again."
        )


def _rotation_agreed(tx: Transaction, caller: Caller, found: Service, now: datetime) -> bool:
    """Whether a second person agreed that the caller rotates, and it was not rotated since."""
    since = max(filter(None, (now - _AGREED_FOR, found.secret_rotated_at)))
    asked = (Proposal.act == "rotate_secret", Proposal.subject == found.id, Proposal.proposed_by == caller.id)
    agreed = select(Proposal.details).where(*asked, Proposal.state == "approved", Proposal.decided_at > since)
    held = set(datasets_of_holder(tx, service_id=found.id))
    return any(held <= set(details["datasets"]) for details in tx.scalars(agreed))


def suspend_service(tx: Transaction, caller: Caller, service_id: str, reason: str, now: datetime) -> list[str]:
    """Shut a service out, its tokens and leases with it; returns the leases now ending."""
    service(tx, caller, service_id)
    return ending.suspend_service(tx, service_id, caller, words.prose(reason, "/reason"), now)


def resume_service(tx: Transaction, caller: Caller, service_id: str, reason: str, now: datetime) -> Service:
    """Lift a suspension; no lease comes back."""
    require_admin(caller)
    found = service(tx, caller, service_id)
    return SERVICES.reopen(tx, caller, found, "service.resumed", words.prose(reason, "/reason"), now)


def recognised(tx: Transaction, service_id: str) -> Service:
    """The service that has just shown its secret."""
    return tx.get_one(Service, service_id)


def note_secret_refused(tx: Transaction, service_id: str, address: str, now: datetime) -> None:
    """Record a wrong secret of a service that exists; once a minute, so that strangers cannot fill the log."""
    if tx.get(Service, service_id) is None:
        return
    kind = "service.secret_refused"
    since = now - REFUSALS_RECORDED_EVERY
    lately = select(Event.id).where(Event.subject == service_id, Event.kind == kind, Event.at > since)
    if tx.execute(lately.limit(1)).first() is None:
        audit.record(tx, kind, actor=audit.SYSTEM, subject=service_id, now=now, personal={"address": address})


def secret_hash_of(tx: Transaction, service_id: str, *, locking: bool = False) -> str | None:
    """The hash a secret is checked against; None where service or vendor are unknown or not active.

    With `locking` both stay as they are until the transaction ends.
    """
    hash_ = select(Service.secret_hash, Service.vendor_id).where(Service.id == service_id, Service.status == "active")
    row = tx.execute(hash_.with_for_update(read=True) if locking else hash_).one_or_none()
    if row is None:
        return None
    if row.vendor_id is not None:
        status = select(Vendor.status).where(Vendor.id == row.vendor_id)
        if tx.execute(status.with_for_update(read=True) if locking else status).scalar_one() != "active":
            return None
    return str(row.secret_hash)


def verify_secret(kept: str | None, secret: str) -> bool:
    """Whether the secret is right. An unknown service costs as long as a wrong secret, so neither can be told apart.

    Raises:
        BackendDown: too many are being checked already.
    """
    if not _verifying.acquire(timeout=2):
        raise BackendDown(
            "Too many secrets are being checked now.", backend="guestkey", advice="Try again in a moment."
        )
    try:
        _hasher.verify(kept or _NOBODY, secret[:MOST_CHARACTERS])
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _verifying.release()
    return kept is not None
