"""Inviting many people of one vendor by the lines of a file, and letting each into their team once confirmed.

An e-mail address in the file is a label for the people who read it. It is never compared with who signs in: whoever
opens the link joins, and an admin then says whether that is the person meant.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from broker.base import words
from broker.base.bulk_lines import Line, Task
from broker.base.csv_lines import Columns, Row
from broker.base.database import Transaction
from broker.base.errors import Conflict, GuestkeyError, Invalid
from broker.base.ids import is_id
from broker.identity import invitations
from broker.identity.caller import Caller
from broker.identity.permissions import missing
from broker.log import audit
from broker.models import Invitation, Person, SignInSource, Team
from broker.registry import people, teams, vendors

COLUMNS = Columns(needed=("name",), optional=("email", "team"))
LONGEST_EMAIL = 254
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True)
class Inviting:
    """Whom a file's people join: a party's source. `again`: new links for those who have not used theirs."""

    source: SignInSource
    again: bool
    lifetime: int


def source_for(tx: Transaction, caller: Caller, source_id: str | None, vendor_id: str | None) -> SignInSource:
    """The sign-in source people are invited through: the one named, or a vendor's only one; a lead's own vendor's.

    Raises:
        Invalid: none is named, or the vendor has several.
        Forbidden, NotFound: it is not the caller's to use.
        Conflict: the vendor has none.
    """
    if source_id is not None:
        source = invitations.usable_source(tx, caller, source_id)
        if vendor_id is not None and source.vendor_id != vendor_id:
            raise Invalid("This source is not that vendor's.", field="/query/vendor")
        return source
    wanted = vendor_id or caller.vendor_id
    if wanted is None:
        raise Invalid("Say which party these people belong to: a vendor or a sign-in source.", field="/query/vendor")
    of = vendors.vendor(tx, caller, wanted)
    query = select(SignInSource.id).where(SignInSource.vendor_id == of.id, SignInSource.status == "active")
    found = list(tx.scalars(query.limit(2)))
    if not found:
        raise Conflict(
            "This vendor has no sign-in source yet.",
            advice="In the portal, under Sign-in sources, one admin proposes one and another approves it.",
        )
    if len(found) > 1:
        raise Invalid("This vendor has several sign-in sources: name one.", field="/query/source")
    return invitations.usable_source(tx, caller, found[0])


def task(caller: Caller, inviting: Inviting) -> Task:
    """What is done with each line of such a file."""
    return Task(_key, lambda tx, row, now: _invite(tx, caller, inviting, row, now))


def confirm_person(tx: Transaction, caller: Caller, person_id: str, now: datetime) -> Person:
    """Say that somebody who joined is who the invitation was meant for; they come into the team it names.

    Confirming never fails for the team's sake: if it is full or gone, an event says that they are not in it.
    """
    confirmed = people.confirm_person(tx, caller, person_id, now)
    into = team_to_join(tx, person_id)
    if into is None:
        return confirmed
    try:
        with tx.begin_nested():
            teams.join_as_invited(tx, caller, into.id, person_id, now)
    except GuestkeyError as error:
        details = {"person": person_id, "code": error.code}
        audit.record(tx, "team.member_not_added", actor=caller.subject, subject=into.id, now=now, details=details)
    return confirmed


def team_to_join(tx: Transaction, person_id: str) -> Team | None:
    """The team that the invitation names by which this person joined."""
    joined = (Invitation.redeemed_by == person_id, Invitation.purpose == "join")
    latest = select(Invitation.team_id).where(*joined).order_by(Invitation.redeemed_at.desc()).limit(1)
    return tx.scalars(select(Team).where(Team.id == latest.scalar_subquery())).first()


def _key(row: Row) -> tuple[str, str]:
    name, email = words.name(row["name"], "/name"), _email(row)
    label = f"{name} <{email}>" if email else name
    if len(label) > _LONGEST_LABEL:
        detail = f"Name and address may be {_LONGEST_LABEL} characters long together at most."
        raise Invalid(detail, field="/name", code="line_unusable")
    return unicodedata.normalize("NFKC", email or f"name {name}").casefold()[:320], label


def _invite(tx: Transaction, caller: Caller, inviting: Inviting, row: Row, now: datetime) -> Line:
    meant_for, label = _key(row)
    source = inviting.source
    team_id = _team(tx, caller, source, row["team"])
    before = invitations.invited(tx, source.id, meant_for)
    if before is not None and before.redeemed_at is not None:
        return Line(row.number, "already_joined", id=before.redeemed_by or "")
    if before is not None and before.expires_at > now:
        if not inviting.again:
            return Line(row.number, "already_invited", id=before.id, expires_at=before.expires_at)
        invitations.end(tx, caller, before, now)
    made, token = invitations.invite_to_join(
        tx, caller, source.id, label, inviting.lifetime, now, meant_for=meant_for, team_id=team_id
    )
    return Line(row.number, "invited", id=made.id, token=token, expires_at=made.expires_at)


def _team(tx: Transaction, caller: Caller, source: SignInSource, named: str) -> str | None:
    if not named:
        return None
    if source.vendor_id is None:
        raise Invalid("The organisation has no teams; teams belong to vendors.", field="/team")
    if not is_id(named):
        named = words.name(named, "/team")
    try:
        into = teams.team_of(tx, caller, source.vendor_id, named)
    except GuestkeyError:
        found = missing("team")
        found.advice = "Check its name, or create it first: guestkey team new NAME"
        raise found from None
    teams.check_may_fill(tx, caller, into)
    return into.id


def _email(row: Row) -> str:
    text = row["email"]
    if not text:
        return ""
    email = words.name(text, "/email", longest=LONGEST_EMAIL)
    if email.count("@") != 1 or email.startswith("@") or email.endswith("@") or set(email) & set(' <>,;"'):
        raise Invalid("This does not look like an e-mail address.", field="/email", code="line_unusable")
    return email
