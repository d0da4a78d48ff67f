"""Grants by the lines of a file: given by who decides about the dataset, asked for by a vendor's lead.

An owner or steward (an admin where there is neither) gives a grant to one of a vendor's people or teams, through the
checks an approval goes through. A lead's line is a request like any other, which those decide about. Nobody gives or
approves anything for themselves: who decides is of the organisation, who holds by a file is of a vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import ColumnElement, select

from broker.base import words
from broker.base.bulk_lines import Line, Task
from broker.base.csv_lines import Columns, Row
from broker.base.database import Transaction
from broker.base.errors import Conflict, Forbidden, Invalid, NotFound
from broker.base.ids import is_id
from broker.gate.explain import ProposedGrant, simulate
from broker.identity.caller import Caller
from broker.identity.permissions import missing, teams_seen
from broker.models import Dataset, Grant, Offer, Person, Team
from broker.registry import people, teams
from broker.registry.approvers import not_decider
from broker.registry.datasets import dataset, offers_of
from broker.registry.naming import names_of
from broker.requests import requests
from broker.requests.approving import begin_grant, capped
from broker.requests.requests import NewRequest, party_of, refuse_if_pointless
from broker.runtime.parts import Parts

COLUMNS = Columns(
    needed=("dataset", "role", "purpose", "until"),
    optional=("person", "team", "slice"),
)


def task(parts: Parts, caller: Caller) -> Task:
    """What is done with each line of such a file: granted, or by a vendor's lead asked for."""
    act = _give if caller.vendor_id is None else _ask
    return Task(_key, lambda tx, row, now: act(parts, tx, caller, row, now))


def gives(caller: Caller) -> bool:
    """Whether a file of the caller's gives grants; otherwise it asks for them.

    Raises:
        Forbidden: neither, for a vendor's people except its lead.
    """
    if caller.vendor_id is not None and "lead" not in caller.roles:
        raise Forbidden(
            "Only people who decide about a dataset and a vendor's lead can do this.", advice="Ask your lead."
        )
    return caller.vendor_id is None


def require_giver(caller: Caller) -> None:
    """Refuse a vendor's people: they ask for grants."""
    if caller.vendor_id is not None:
        raise Forbidden(
            "People of a vendor cannot give grants.", advice="Request a role on a dataset: `guestkey request new`."
        )


def possible_holders(tx: Transaction, caller: Caller, of: Dataset) -> list[tuple[str, str]]:
    """Whom the dataset can be granted to, as prefixed id and name: teams and people of vendors it is offered to."""
    ids = [offer.vendor_id for offer in offers_of(tx, caller, of)]
    vendors = names_of(tx, ids)
    found = [(f"team:{team.id}", f"Team {team.name} ({vendors[team.vendor_id]})") for team in teams.choices(tx, ids)]
    named = people.choices(tx, ids)
    theirs = people.vendor_names(tx, named)
    return found + [(f"person:{id_}", f"{name} ({theirs[id_]})") for id_, name in named.items()]


def give(parts: Parts, tx: Transaction, caller: Caller, fields: Mapping[str, str], now: datetime) -> Grant:
    """Give one grant to one of a vendor's people or teams, as a line of a file does.

    Args:
        fields: the cells of such a line, by column: `dataset`, `role`, `purpose`, `until`, `person` or `team`, `slice`.

    Raises:
        Forbidden, Conflict: the caller has no say, or a grant would open nothing now.
        Invalid: a field is unusable.
        NotFound: no such dataset, person or team, or the dataset is not offered to their vendor.
    """
    require_giver(caller)
    row = Row(1, {name: text.strip() for name, text in fields.items()})
    _key(row)
    line = _give(parts, tx, caller, row, now)
    if line.outcome != "granted":
        raise Conflict("They already have this grant, for the same time or longer.", advice=f"See /grants/{line.id}.")
    return tx.get_one(Grant, line.id)


def _key(row: Row) -> tuple[str, str]:
    if bool(row["person"]) == bool(row["team"]):
        raise _wrong("Name either a person or a team.", "team")
    if row["person"] and not is_id(row["person"]):
        raise _wrong("Name a person by id, as shown by `guestkey person list`.", "person")
    who = row["person"] or row["team"]
    if not is_id(who):
        who = words.name(who, "/team")
    words.slug(row["dataset"], "/dataset")
    words.word(row["role"], "/role")
    if row["slice"]:
        words.word(row["slice"], "/slice")
    about = f"{who}: {row['role']} on {row['dataset']}" + (f", {row['slice']}" if row["slice"] else "")
    return " ".join((who, row["dataset"], row["role"], row["slice"])), about


def _ask(parts: Parts, tx: Transaction, caller: Caller, row: Row, now: datetime) -> Line:
    until = _until(row["until"], now)
    of = dataset(tx, caller, row["dataset"])
    team = _team(tx, caller, row["team"], Team.vendor_id == caller.vendor_id) if row["team"] else None
    if row["person"]:
        # Before it is told what that person holds.
        people.person(tx, caller, row["person"])
    new = NewRequest(
        dataset=row["dataset"],
        role=row["role"],
        purpose=row["purpose"],
        period=_period(until, now),
        slice=row["slice"] or None,
        team_id=team.id if team else None,
        person_id=row["person"] or None,
        until=until,
    )
    if (asked := requests.same_pending(tx, caller, of.id, new)) is not None:
        return Line(row.number, "already_asked", id=asked)
    if (held := _held(tx, of.id, new.person_id, new.team_id, row, capped(tx, of.id, until))) is not None:
        return Line(row.number, "already_granted", id=held.id, expires_at=held.ends_at)
    return Line(row.number, "asked", id=requests.ask(parts, tx, caller, new, now).id)


def _give(parts: Parts, tx: Transaction, caller: Caller, row: Row, now: datetime) -> Line:
    until = _until(row["until"], now)
    purpose = words.prose(row["purpose"], "/purpose")
    of = dataset(tx, caller, row["dataset"])
    # First: whoever has no say here learns nothing about who could hold it.
    refusal = not_decider(tx, caller, of.id, row["role"])
    if refusal is not None:
        raise refusal
    holder = _holder(tx, caller, of, row)
    _period(until, now)
    grant = Grant(
        dataset_id=of.id,
        role=row["role"],
        person_id=holder.id if isinstance(holder, Person) else None,
        team_id=holder.id if isinstance(holder, Team) else None,
        slice_name=row["slice"] or None,
        purpose=purpose,
        ends_at=until,
    )
    prospect = ProposedGrant(grant.holder, grant.role, grant.slice_name)
    simulation = simulate(tx, parts.rulebook, _party(tx, holder, now), of.id, prospect)
    # Only now the holder's row is locked, and two files sent at once see each other's grants.
    held = _held(tx, of.id, grant.person_id, grant.team_id, row, capped(tx, of.id, until))
    if held is not None:
        return Line(row.number, "already_granted", id=held.id, expires_at=held.ends_at)
    refuse_if_pointless(simulation)
    begin_grant(tx, caller, grant, simulation.revision, now)
    return Line(row.number, "granted", id=grant.id, expires_at=grant.ends_at)


def _holder(tx: Transaction, caller: Caller, of: Dataset, row: Row) -> Person | Team:
    """Who is to hold the grant; who decides about a dataset may name whom it is offered to."""
    offered = select(Offer.vendor_id).where(Offer.dataset_id == of.id, Offer.ended_at.is_(None))
    if row["team"]:
        found = _team(tx, caller, row["team"], Team.vendor_id.in_(offered))
        # Orders this grant against people being added by their lead (`broker.registry.teams`).
        tx.execute(select(Team.id).where(Team.id == found.id).with_for_update())
        return found
    person = tx.scalars(select(Person).where(Person.id == row["person"], Person.vendor_id.in_(offered))).one_or_none()
    if person is None:
        raise _nobody("person")
    return person


def _team(tx: Transaction, caller: Caller, named: str, where: ColumnElement[bool]) -> Team:
    seen = teams_seen(caller) if caller.vendor_id is not None else Team.id.is_not(None)
    same = Team.id == named if is_id(named) else Team.name == named
    found = tx.scalars(select(Team).where(where, seen, same).limit(2)).all()
    if not found:
        raise _nobody("team")
    if len(found) > 1:
        raise _wrong("Two vendors have a team with that name: give its id.", "team")
    return found[0]


def _nobody(noun: str) -> NotFound:
    found = missing(noun)
    found.advice = f"Check the {noun}, and that the dataset is offered to their vendor."
    return found


def _party(tx: Transaction, holder: Person | Team, now: datetime) -> Caller:
    """Who the gate is asked about: the person, or for a team anybody of its vendor."""
    if isinstance(holder, Person):
        return Caller.not_asking(holder, now)
    anybody = select(Person.id).where(Person.vendor_id == holder.vendor_id, Person.status == "active")
    someone = tx.execute(anybody.limit(1)).scalar()
    if someone is None:
        raise Conflict(
            "No one of this vendor has joined yet, so access for its team cannot be checked.",
            advice="Confirm a person of this vendor first.",
        )
    return party_of(tx, None, someone, now)


def _held(
    tx: Transaction, dataset_id: str, person_id: str | None, team_id: str | None, row: Row, until: datetime
) -> Grant | None:
    query = select(Grant).where(
        Grant.person_id == person_id if person_id else Grant.team_id == team_id,
        Grant.dataset_id == dataset_id,
        Grant.role == row["role"],
        Grant.slice_name.is_not_distinct_from(row["slice"] or None),
        Grant.revoked_at.is_(None),
        Grant.ends_at >= until,
    )
    return tx.scalars(query.limit(1)).one_or_none()


def _until(text: str, now: datetime) -> datetime:
    """When a grant is to end: a day (until its end, UTC), or a time with its zone."""
    try:
        if len(text) == len("2026-12-31"):
            until = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(), UTC)
        else:
            until = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise _wrong("A day like 2026-12-31, or a time with its zone like 2026-12-31T18:00Z.", "until") from None
    if until.tzinfo is None:
        raise _wrong("This time has no zone: add Z for UTC.", "until")
    if until <= now:
        raise _wrong("This is in the past.", "until")
    return until


def _period(until: datetime, now: datetime) -> int:
    seconds = int((until - now).total_seconds())
    if not requests.SHORTEST_PERIOD <= seconds <= requests.LONGEST_PERIOD:
        raise _wrong(f"A grant lasts a minute at least and {requests.LONGEST_PERIOD // 86400} days at most.", "until")
    return seconds


def _wrong(detail: str, column: str) -> Invalid:
    return Invalid(detail, field=f"/{column}", code="line_unusable")
