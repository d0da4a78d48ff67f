"""Events in plain words: one sentence for each kind, with names instead of ids; unknown kinds are told by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.base.database import Transaction
from broker.base.ids import is_id
from broker.identity.caller import Caller
from broker.identity.nouns import declared
from broker.registry.naming import bare, names_of, names_seen

_UNNAMED = "(not named)"
# Of events that are no noun's. `{who}` did it, to `{whom}`; other names are the event's own details.
_OTHERS: Mapping[str, str] = {
    "audit.exported": "{who} exported events.",
    "backend.connected": "{who} connected the backend {whom}.",
    "catalogue.asked": "{who} asked for the list of tables in {whom}.",
    "catalogue.failed": "{who} could not read the list of tables in {whom}.",
    "catalogue.read": "{who} read the list of tables in {whom}.",
    "code.made": "{who} allowed a command line to sign in.",
    "code.replayed": "{who} ended a token: the sign-in code it came from was used twice.",
    "decision.allowed": "{who} was allowed access to {whom}.",
    "decision.denied": "{who} was denied access to {whom}.",
    "factor.enrolled": "{who} enrolled a second factor ({method}).",
    "factor.enrolment_opened": "{who} can enrol a first second factor within 15 minutes.",
    "factor.locked_out": "{who} was locked out of their second factor after wrong codes.",
    "factor.proven": "{who} confirmed a second factor.",
    "factor.proven_elsewhere": "{who} confirmed their command line in the browser.",
    "factor.refused": "{who} entered a wrong second factor.",
    "factor.removed": "{who} removed a second factor ({method}).",
    "factor.replaced": "{who} replaced their authenticator app.",
    "factor.reset": "{who} and {proposed_by} reset the second factor of {whom}.",
    "installation.closed": "{who} closed the whole installation.",
    "installation.made": "{who} set up the installation.",
    "installation.opened": "{who} reopened the installation.",
    "list.exported": "{who} exported the list of {list}.",
    "notice.chosen": "{who} chose which notices to receive by mail.",
    "notice.given_up": "{who} gave up delivering notices.",
    "place.answered": "{who} can again list the credentials in {whom}.",
    "place.silent": "{who} cannot list the credentials in {whom}.",
    "policy.applied": "{who} put the rules of {whom} in force.",
    "recovery.begun": "{who} began an emergency recovery: one admin for an hour.",
    "recovery.used": "{who} became an admin for an hour through the recovery link {whom}.",
    "recovery_codes.replaced": "{who} created new recovery codes.",
    "recovery_code.used": "{who} used a recovery code.",
    "session.ended": "{who} signed out, or was signed out ({cause}).",
    "session.started": "{who} signed in.",
    "token.issued": "{who} received a token.",
    "token.revoked": "{who} ended a token.",
}
_NO_PERSONS = {"system": "Guestkey", "operator": "The operator"}


@dataclass(frozen=True, slots=True)
class EventRead:
    """One event as the reader may see it. `personal` holds clear text that has not been erased."""

    number: int
    id: str
    at: datetime
    kind: str
    actor: str
    subject: str
    details: dict[str, Any]
    personal: dict[str, str]
    leaf: str | None


class _Details(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return _UNNAMED


def sentences() -> dict[str, str]:
    """How each kind of event is told."""
    told = dict(_OTHERS)
    for noun in declared():
        told |= noun.sentences
    return told


def sentence(kind: str, who: str, whom: str, details: Mapping[str, str]) -> str:
    """What happened, in a sentence."""
    said = sentences().get(kind, "{who}: " + kind + ", {whom}.")
    return said.format_map(_Details({**details, "who": who, "whom": whom}))


def names_in(tx: Transaction, caller: Caller, events: Iterable[EventRead]) -> dict[str, str]:
    """What these events name is called, by id: who did it to whom, and of their details what the reader sees."""
    events = list(events)
    named = {bare(text) for event in events for text in (event.actor, event.subject)}
    beside = {bare(text) for event in events for text in texts(event.details)}
    return names_of(tx, named) | names_seen(tx, caller, beside)


def said(event: EventRead, names: Mapping[str, str]) -> str:
    """What happened, in a sentence."""
    who = _NO_PERSONS.get(event.actor) or _called(event.actor, names)
    details = {
        name: _called(value, names) if is_id(bare(value)) else value.replace("_", " ")
        for name, value in event.details.items()
        if isinstance(value, str)
    }
    return sentence(event.kind, who, _called(event.subject, names), details)


def told(tx: Transaction, caller: Caller, events: Sequence[EventRead]) -> list[tuple[EventRead, str]]:
    """Events, each with its sentence."""
    names = names_in(tx, caller, events)
    return [(event, said(event, names)) for event in events]


def _called(named: str, names: Mapping[str, str]) -> str:
    """A name, or the id's end: nobody reads all of it."""
    id_ = bare(named)
    return names.get(id_, f"…{id_[-6:]}" if is_id(id_) else named)


def texts(value: Any) -> Iterator[str]:
    """What a detail holds, text by text."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from (text if is_id(bare(text)) else f"{name} {text}" for text in texts(item))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)
    elif value is not None:
        yield str(value)
