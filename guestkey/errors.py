"""What can go wrong, by what a program can do about it. None of them holds a secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import mappings


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason of a denial. `who` can act: `you`, `time`, or `someone`; `opens_at` is an ISO 8601 time, or ""."""

    code: str
    sentence: str
    advice: str
    who: str
    opens_at: str


class Error(Exception):
    """Guestkey cannot do what was asked.

    `code` is the API's own, such as `too_many_leases`, or "" where no answer came; `next_step` says what to do.
    """

    def __init__(self, fault: Fault) -> None:
        self.what = fault.what
        self.why = fault.why
        self.next_step = fault.command or fault.next_step
        self.problem: Mapping[str, object] = fault.problem
        self.code = str(fault.problem.get("code") or "")
        # The API's titles are headings; beside a sentence they need its full stop.
        what = fault.what if fault.what.endswith((".", "!", "?")) or not fault.why else f"{fault.what}."
        super().__init__(" ".join(part for part in (what, fault.why, fault.next_step) if part))


class Denied(Error):
    """The gate said no. `reasons` are all of them, as far as they concern the caller."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.decision_id = str(fault.problem.get("decision_id") or "")
        self.reasons = tuple(_reason(one) for one in mappings(fault.problem.get("reasons")))
        said = "; ".join(reason.sentence.rstrip(".") for reason in self.reasons)
        if said:
            self.args = (f"{fault.what} {said}.",)


class FactorNeeded(Error):
    """A second factor is due, and a program cannot give it: the person runs `guestkey confirm`.

    `max_age` is how old it may be, in seconds; None if that is not said.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        age = fault.problem.get("max_age")
        self.max_age = age if isinstance(age, int) else None


class NotSignedIn(Error):
    """There is no token, or it has ended: `guestkey login`, or the service's own credentials."""


class NotFound(Error):
    """There is nothing of that name, or nothing that the caller is shown."""


class BackendDown(Error):
    """The broker, or something behind it, does not answer. Trying again later may help."""


class Refused(Error):
    """It cannot be done as things are: too many live leases, a wrong argument, something not installed."""


_BY_CODE: Mapping[Code, type[Error]] = {
    Code.DENIED: Denied,
    Code.FACTOR: FactorNeeded,
    Code.SIGN_IN: NotSignedIn,
    Code.NOT_FOUND: NotFound,
    Code.BACKEND: BackendDown,
}


@contextmanager
def typed() -> Iterator[None]:
    """Faults of the client's own parts become errors of these classes."""
    try:
        yield
    except Fault as fault:
        raise _BY_CODE.get(fault.code, Refused)(fault) from None


def _reason(found: Mapping[str, object]) -> Reason:
    texts = {name: str(found.get(name) or "") for name in ("code", "sentence", "advice", "who", "opens_at")}
    return Reason(**texts)
