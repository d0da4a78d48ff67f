"""Why the gate said no, grouped by who can act: you, time, or someone else, who gets a message to read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from guestkey.cli.words import safe

Reason = Mapping[str, Any]
_HEADINGS = {"you": "What you can fix", "time": "What needs time", "someone": "What someone else must fix"}
# What a person can do about a reason from here; blanks as in `guestkey.cli.problems`.
COMMANDS: Mapping[str, str] = {
    "factor_missing": "guestkey confirm",
    "factor_stale": "guestkey confirm",
    "no_grant": "guestkey request new {dataset}",
    "grant_ended": "guestkey request new {dataset}",
    "slice_unknown": "guestkey dataset show {dataset}",
    "slice_unnamed": "guestkey dataset show {dataset}",
    "slice_not_granted": "guestkey grant list --dataset {dataset}",
    "caller_unknown": "guestkey login",
}
# Where a person does it by an option, which the API, of whoever asks, does not know of.
_ADVICE: Mapping[str, str] = {"slice_unnamed": "Name one of them: --slice NAME"}


def told(reasons: Sequence[Reason], opens: Callable[[Any], str], about: str, decision: str) -> Iterator[str]:
    """The lines to print.

    Args:
        opens: writes the time at which something opens.
        about: what was wanted, for the message to someone else; "" if that is not known.
        decision: the decision's id, or "".
    """
    for who, heading in _HEADINGS.items():
        # What a newer server calls otherwise is someone else's.
        group = [reason for reason in reasons if _who(reason) == who]
        if group:
            yield f"{heading}:"
        for reason in group:
            yield f"  ✕ {safe(reason.get('sentence'))}"
            if reason.get("opens_at"):
                yield f"    Opens {opens(reason['opens_at'])}."
            elif advice := _ADVICE.get(str(reason.get("code"))) or reason.get("advice"):
                yield f"    → {safe(advice)}"
        if group and who == "someone" and about:
            yield from _message(group, about, decision)


def next_command(reasons: Sequence[Reason]) -> str:
    """What a person can do first from here, with blanks; "" if nothing."""
    codes = [str(reason.get("code")) for reason in reasons if _who(reason) == "you"]
    return next((COMMANDS[code] for code in codes if code in COMMANDS), "")


def _who(reason: Reason) -> str:
    who = reason.get("who")
    return who if isinstance(who, str) and who in _HEADINGS else "someone"


def _message(group: Sequence[Reason], about: str, decision: str) -> Iterator[str]:
    yield "  Send them this message:"
    named = f" Decision {safe(decision)}." if decision else ""
    yield f"    I could not get a credential for {safe(about)}.{named}"
    for reason in group:
        yield f"    - {safe(reason.get('sentence'))} {safe(reason.get('advice'))}".rstrip()
