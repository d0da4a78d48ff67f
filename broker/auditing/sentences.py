"""Events in plain words: one sentence for each kind, naming who did it and to what; unknown kinds are told by name."""

from __future__ import annotations

from collections.abc import Mapping

from broker.identity.nouns import declared

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
