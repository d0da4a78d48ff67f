"""What people choose about their notices, their own list of them, and what calls for attention on every page.

What must reach somebody cannot be turned off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import Page, Window, page
from broker.identity.caller import Caller
from broker.identity.permissions import leases_seen
from broker.log import audit
from broker.models import CHOICES, TOPICS, Dataset, Delivery, Lease, NoticeAddress, NoticeChoice, PolicyInForce
from broker.notices.digests import KIND as DIGEST
from broker.notices.digests import next_digest, zone_of

DEFAULT = "now"
DEFAULT_HOUR = 8
DEFAULT_ZONE = "UTC"
_MOST_COUNTED = 100


@dataclass(frozen=True, slots=True)
class Topic:
    """A sort of notices. `mandatory`: they come at once, whatever is chosen. `of_all`: what a channel gets of it."""

    name: str
    title: str
    about: str
    mandatory: bool = False
    of_all: str = ""


_ALL = {
    "to_decide": Topic(
        "to_decide",
        "Waiting for your decision",
        "Requests you may approve or refuse.",
        of_all="Requests that wait for a decision",
    ),
    "own_datasets": Topic(
        "own_datasets",
        "Your datasets",
        "Their text, owner, labels, retention or slices changed, or a team or service secret with access to them.",
        of_all="Datasets, slices, granted teams and services' secrets that changed",
    ),
    "own_requests": Topic(
        "own_requests",
        "Your requests",
        "About to lapse, approved, refused, lapsed or withdrawn.",
        of_all="Requests decided, lapsed or withdrawn",
    ),
    "own_grants": Topic(
        "own_grants",
        "Your access",
        "You were confirmed; your access was given, is about to end, or ended.",
        of_all="People confirmed; grants given from a file, about to end, or ended",
    ),
    "own_account": Topic(
        "own_account",
        "Your second factors",
        "One was added, replaced, removed or reset; recovery codes were used or created.",
        mandatory=True,
        of_all="People's second factors that were changed",
    ),
    "staff": Topic(
        "staff",
        "Your staff",
        "A person of your vendor was suspended, or was given access that you did not request.",
        of_all="Vendors' people who were suspended",
    ),
    "joins": Topic("joins", "Joining", "A person has joined and is waiting for confirmation."),
    "two_person": Topic(
        "two_person", "Changes that need a second person", "Proposed, about to lapse, approved, refused or lapsed."
    ),
    "failures": Topic(
        "failures",
        "Credentials that could not be ended",
        "A backend did not confirm an end, has a credential without a record, or is not responding.",
    ),
    "emergency": Topic(
        "emergency",
        "Emergencies",
        "Emergency recovery was used; the installation was closed or opened.",
        mandatory=True,
    ),
}


# What nobody may turn off: it comes at once, to everybody it concerns.
MANDATORY = frozenset(name for name, topic in _ALL.items() if topic.mandatory)


@dataclass(frozen=True, slots=True)
class NoticePreferences:
    """What somebody has chosen. `address`: where mails go, empty where there is none."""

    address: str
    digest_hour: int
    digest_zone: str
    topics: Sequence[tuple[Topic, str]]


def topics_of(caller: Caller) -> list[Topic]:
    """The topics that can ever reach this person."""
    names = ["own_requests", "own_grants", "own_account"]
    if caller.vendor_id is None:
        names[:0] = ["to_decide", "own_datasets"]
    elif "lead" in caller.roles:
        names.append("staff")
    if caller.is_admin:
        names += ["joins", "two_person", "failures"]
    if caller.is_admin or caller.is_auditor:
        names.append("emergency")
    return [_ALL[name] for name in names]


def every_topic() -> list[Topic]:
    """All of them, as channels of the organisation may take them."""
    return [_ALL[name] for name in TOPICS]


def preferences(tx: Transaction, caller: Caller) -> NoticePreferences:
    """What the caller has chosen, defaults filled in."""
    _check_person(caller)
    kept = tx.get(NoticeAddress, caller.id)
    rows = tx.scalars(select(NoticeChoice).where(NoticeChoice.person_id == caller.id))
    choices = {row.topic: row.choice for row in rows}
    return NoticePreferences(
        kept.address if kept else "",
        kept.digest_hour if kept else DEFAULT_HOUR,
        kept.digest_zone if kept else DEFAULT_ZONE,
        [(topic, DEFAULT if topic.mandatory else choices.get(topic.name, DEFAULT)) for topic in topics_of(caller)],
    )


def set_preferences(
    tx: Transaction, caller: Caller, choices: Mapping[str, str], now: datetime, *, hour: int, zone: str
) -> NoticePreferences:
    """Keep what the caller chooses; topics not named stay as they are.

    Raises:
        Invalid: there is no such topic for the caller, no such choice, hour or zone, or it cannot be turned off.
    """
    _check_person(caller)
    theirs = {topic.name: topic for topic in topics_of(caller)}
    for name, choice in choices.items():
        if name not in theirs:
            raise Invalid("There is no such topic for you.", field="/topics")
        if choice not in CHOICES:
            raise Invalid(f"Choose one of {', '.join(CHOICES)}.", field=f"/topics/{name}")
        if theirs[name].mandatory and choice != DEFAULT:
            raise Invalid(f"{theirs[name].title}: these notices are always mailed at once.", field=f"/topics/{name}")
    if not 0 <= hour <= 23:
        raise Invalid("An hour is 0 to 23.", field="/digest_hour")
    zone_of(zone)
    for name, choice in choices.items():
        row = insert(NoticeChoice).values(person_id=caller.id, topic=name, choice=choice)
        tx.execute(row.on_conflict_do_update(constraint="pk_notice_choice", set_={"choice": choice}))
    _keep_hour(tx, caller.id, hour, zone, now)
    details = {"topics": dict(sorted(choices.items())), "digest_hour": hour, "digest_zone": zone}
    audit.record(tx, "notice.chosen", actor=caller.subject, subject=caller.id, now=now, details=details)
    return preferences(tx, caller)


def _keep_hour(tx: Transaction, person_id: str, hour: int, zone: str, now: datetime) -> None:
    values = {"digest_hour": hour, "digest_zone": zone}
    row = insert(NoticeAddress).values(person_id=person_id, **values)
    tx.execute(row.on_conflict_do_update(constraint="pk_notice_address", set_=values))
    # A digest already begun comes at the new hour.
    begun = update(NoticeAddress).where(NoticeAddress.person_id == person_id, NoticeAddress.digest_at.is_not(None))
    tx.execute(begun.values(digest_at=next_digest(now, hour, zone)))


def list_notices(tx: Transaction, caller: Caller, window: Window) -> Page[Delivery]:
    """The caller's own notices, newest first, whether they were sent or not."""
    _check_person(caller)
    query = select(Delivery).where(Delivery.person_id == caller.id, Delivery.kind != DIGEST)
    return page(tx, query, Delivery.id, window)


def unread(tx: Transaction, person_id: str) -> int:
    """How many the person has not marked as read; counted up to a hundred."""
    few = select(Delivery.id).where(Delivery.person_id == person_id, Delivery.read_at.is_(None)).limit(_MOST_COUNTED)
    return tx.execute(select(func.count()).select_from(few.subquery())).scalar_one()


def mark_read(tx: Transaction, caller: Caller, now: datetime, *, up_to: str) -> None:
    """Mark the caller's notices as read, up to and with the one named: later ones were not seen yet."""
    _check_person(caller)
    seen = (Delivery.person_id == caller.id, Delivery.read_at.is_(None), Delivery.id <= up_to)
    tx.execute(update(Delivery).where(*seen).values(read_at=now))


def _check_person(caller: Caller) -> None:
    if caller.kind != "person":
        raise Forbidden("Only people have notices.")


@dataclass(frozen=True, slots=True)
class Attention:
    """`alarm`: a lease they may see could not be ended yet. `closed`: the whole installation is closed.

    `unread`: there are notices they have not marked as read. `owns`: a dataset is theirs.
    """

    alarm: bool
    closed: bool
    unread: bool
    owns: bool


def attention(tx: Transaction, caller: Caller) -> Attention:
    """What calls for the caller's attention now."""
    alarm = exists().where(Lease.state == "revoke_failed", leases_seen(caller))
    closed = exists().where(PolicyInForce.closed_at.is_not(None))
    unread = exists().where(Delivery.person_id == caller.id, Delivery.read_at.is_(None))
    owns = exists().where(Dataset.owner_id == caller.id, Dataset.status != "retired")
    return Attention(*tx.execute(select(alarm, closed, unread, owns)).one())
