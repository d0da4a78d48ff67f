"""What the gate says: allowed or not, every reason, and the bounds set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NoReturn

Who = Literal["you", "time", "someone"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One unmet requirement: a stable code, a sentence, what to do, and who can: you, time, or someone else.

    `temporary`: time, a second factor or another place mends it, so it does not speak against giving a grant.
    `factor`: a fresh second factor is what it asks for.
    """

    code: str
    sentence: str
    advice: str
    who: Who
    rule: str | None = None
    opens_at: datetime | None = None
    temporary: bool = False
    factor: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an allowed credential is bound to: slice, longest lifetime in seconds, latest end.

    `networks` are the CIDRs it may be used from, where the rule names networks; empty for anywhere.
    """

    slice: str
    action: str
    max_lifetime: int
    not_after: datetime
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer. `visible` is false where the caller must not even learn that the dataset exists.

    `factor_needed` is the freshness in seconds if a fresh second factor is all that is missing. `passed` names the
    checks that held. A decision has no truth value: ask `.allowed`.
    """

    allowed: bool
    reasons: tuple[Reason, ...]
    passed: tuple[str, ...]
    rules: tuple[str, ...]
    revision: int | None
    decided_at: datetime
    bounds: Bounds | None = None
    grant: str | None = None
    visible: bool = True
    factor_needed: int | None = None

    def __bool__(self) -> NoReturn:
        """A refusal that is truthy by accident would allow."""
        raise TypeError("a decision has no truth value: ask decision.allowed")
