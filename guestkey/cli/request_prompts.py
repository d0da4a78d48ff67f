"""Asking for what `guestkey request new` was not told: dataset, role, slice, purpose, period, one question each.

Only on a terminal where somebody can answer. Nothing is preselected but the period, and nothing is sent unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import Output
from guestkey.cli.words import duration, safe, seconds_of

PERIOD = "30d"
_ATTEMPTS = 5
_MOST = 100
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What is asked for, as far as it was said."""

    dataset: str | None
    role: str | None
    purpose: str | None
    period: str | None
    slice: str | None

    @property
    def missing(self) -> list[str]:
        """What cannot be left out and was, as it is typed."""
        needed = {"DATASET": self.dataset, "--role": self.role, "--purpose": self.purpose}
        return [name for name, value in needed.items() if not value]


def complete(api: Api, out: Output, wish: RequestDraft) -> RequestDraft:
    """Ask for everything that was left out, and whether to send it.

    Raises:
        Fault: there is nothing to choose from, or no answer fitted.
        KeyboardInterrupt: it is not to be sent.
    """
    slug = wish.dataset or _dataset(api, out)
    dataset = api.get(f"/datasets/{segment(slug)}")
    out.say(f"{safe(dataset.get('title'))}: {safe(dataset.get('description')) or safe(slug)}")
    role = wish.role or _role(out, dataset, slug)
    wish = replace(
        wish,
        dataset=slug,
        role=role,
        slice=wish.slice or _slice(out, dataset),
        purpose=wish.purpose or _until(out, "Purpose, in one sentence for the person who decides: ", _prose),
        period=wish.period or _until(out, f"For how long [{PERIOD}]: ", _period),
    )
    out.say(f"\n{_summary(wish)}\nThe dataset's owner or a steward decides.")
    if not out.ask("Send this request? [y/N] ").lower().startswith("y"):
        out.say("Nothing was sent.")
        raise KeyboardInterrupt
    return wish


def _dataset(api: Api, out: Output) -> str:
    found = api.pages("/datasets", _MOST)
    if not found:
        raise Fault(
            Code.NOT_FOUND,
            "No datasets yet: none is offered to you.",
            next_step="Ask your contact at the organisation.",
        )
    rows = [(str(item.get("slug")), str(item.get("title"))) for item in found]
    return _chosen(out, "Which dataset?", rows)


def _role(out: Output, dataset: Json, slug: str) -> str:
    roles = [(str(role), "") for role in dataset.get("roles") or []]
    if not roles:
        raise Fault(Code.DENIED, "No role can be requested on this dataset.", next_step=f"guestkey why {slug}")
    return _chosen(out, "Which role?", roles)


def _slice(out: Output, dataset: Json) -> str | None:
    ready = [item for item in dataset.get("slices") or [] if item.get("state") == "ready"]
    rows = [(str(item.get("name")), str(item.get("description") or "")) for item in ready]
    return _chosen(out, "Which slice?", rows) if rows else None


def _chosen(out: Output, question: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    out.say(f"\n{question}")
    for number, (name, about) in enumerate(rows, 1):
        out.say(f"  {number:>3}  {safe(name):<{width}}  {safe(about)}".rstrip())
    names = [name for name, _ in rows]

    def read(answer: str) -> str:
        if answer in names:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        raise Fault(Code.USAGE, f"Enter a number from 1 to {len(names)}, or a name.")

    return _until(out, "Number or name: ", read)


def _prose(answer: str) -> str:
    if not answer:
        raise Fault(Code.USAGE, "The person who decides needs to know the purpose.")
    return answer


def _period(answer: str) -> str:
    seconds_of(answer or PERIOD)
    return answer or PERIOD


def _until(out: Output, prompt: str, read: Callable[[str], Read]) -> Read:
    """Ask until the answer can be read."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return read(out.ask(prompt))
        except Fault as fault:
            if attempt == _ATTEMPTS:
                raise
            out.say(f"{safe(fault.what)} {safe(fault.next_step)}".rstrip())
    raise AssertionError("the loop returns or raises")


def _summary(wish: RequestDraft) -> str:
    part = f", {safe(wish.slice)}" if wish.slice else ""
    length = duration(seconds_of(wish.period or PERIOD))
    return f"You request {safe(wish.role)} on {safe(wish.dataset)}{part}, for {length}, for this: {safe(wish.purpose)}"
