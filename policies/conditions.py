"""The closed vocabulary of conditions: one frozen class each, which says why it is not met.

A condition is met, unmet, or unknowable for lack of a fact. For a rule that allows, unknowable counts as unmet; for
one that denies, as met: fewer facts never allow more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from broker.base.addresses import lies_in

from .decision import Reason
from .facts import Facts

Networks = Mapping[str, tuple[IPv4Network | IPv6Network, ...]]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Part of a zone's name: `Europe`, `Porto-Novo`, `GMT+5`. Names set by the host mean another zone on each machine.
_ZONE = r"[A-Za-z][A-Za-z0-9_+-]{0,30}"
_HOST_ZONES = frozenset({"localtime", "posixrules", "Factory"})
_DURATION = r"([1-9][0-9]{0,5})([smhd])"
MAX_SECONDS = 86400


Ranges = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """The result for one condition: `reason` None means met. The bounds it sets hold while it is met."""

    reason: Reason | None = None
    unknown: bool = False
    max_lifetime: int | None = None
    not_after: datetime | None = None
    factor_max_age: int | None = None
    networks: Ranges = ()


class Condition(Protocol):
    """One named requirement of a rule."""

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Whether the facts meet it at `now`."""


@dataclass(frozen=True, slots=True)
class FactorFresh:
    """`mfa<=15m`: a second factor proven in this session, at most so long ago (NIST SP 800-63B, reauthentication)."""

    max_age: int

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Met by a factor time that is neither missing, nor old, nor in the future."""
        caller = facts.caller
        if caller is None or not caller.subject.startswith("person:"):
            return ConditionResult(
                _for_others(
                    "factor_impossible",
                    "This rule needs a second factor, which only people have.",
                    "Request a role for services.",
                ),
                unknown=True,
            )
        if caller.factor_at is None and not caller.factor_enrolled:
            reason = _factor(
                "factor_not_enrolled",
                "You have no second factor yet.",
                "Add a passkey or an authenticator app under Security, then try again.",
            )
            return ConditionResult(reason, unknown=True, factor_max_age=self.max_age)
        if caller.factor_at is None:
            reason = _factor(
                "factor_missing",
                "No second factor was confirmed in this session.",
                "Confirm your second factor, then try again.",
            )
            return ConditionResult(reason, unknown=True, factor_max_age=self.max_age)
        age = (now - caller.factor_at).total_seconds()
        # 5 s of tolerance: the clocks of two servers may differ by a second or two.
        if -5 <= age <= self.max_age:
            return ConditionResult()
        reason = _factor(
            "factor_stale",
            f"Your second factor was confirmed {_duration(int(max(age, 0)))} ago; this rule allows at most"
            f" {_duration(self.max_age)}.",
            "Confirm your second factor, then try again.",
        )
        return ConditionResult(reason, factor_max_age=self.max_age)


@dataclass(frozen=True, slots=True)
class LifetimeAtMost:
    """`ttl<=1h`: no credential lives longer."""

    seconds: int

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Met if nothing longer is asked for."""
        if facts.lifetime is not None and facts.lifetime > self.seconds:
            reason = _for_caller(
                "lifetime_too_long",
                f"{_duration(facts.lifetime)} was requested; this rule allows {_duration(self.seconds)}.",
                f"Request {_duration(self.seconds)} or less.",
            )
            return ConditionResult(reason, max_lifetime=self.seconds)
        return ConditionResult(max_lifetime=self.seconds)


@dataclass(frozen=True, slots=True)
class Hours:
    """`hours:08-20/Europe/Berlin`, optionally `hours:mon-fri@08-20/…`: from the first hour up to the second."""

    start: int
    end: int
    zone: str
    first_day: int = 0
    last_day: int = 6

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Met inside the window, which then bounds the credential; outside, says when it opens."""
        zone = ZoneInfo(self.zone)
        local = now.astimezone(zone)
        opens, closes = self._window(local, zone)
        if self._day_counts(local) and opens <= now < closes:
            return ConditionResult(not_after=closes)
        next_open = self._next_opening(local, zone, now)
        reason = Reason(
            "outside_hours",
            f"Access is allowed from {self.start:02}:00 to {self.end:02}:00 {self.zone}{self._days()}.",
            "Try again at that time.",
            "time",
            opens_at=next_open,
            temporary=True,
        )
        return ConditionResult(reason)

    def _window(self, local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
        opens = datetime.combine(local.date(), time(self.start), zone)
        day = local.date() + timedelta(days=1) if self.end == 24 else local.date()
        return opens, datetime.combine(day, time(self.end % 24), zone)

    def _day_counts(self, local: datetime) -> bool:
        return self.first_day <= local.weekday() <= self.last_day

    def _next_opening(self, local: datetime, zone: ZoneInfo, now: datetime) -> datetime | None:
        for ahead in range(8):
            day = local + timedelta(days=ahead)
            opens = self._window(day, zone)[0]
            if opens > now and self._day_counts(day):
                return opens
        return None

    def _days(self) -> str:
        return (
            "" if (self.first_day, self.last_day) == (0, 6) else f", {_DAYS[self.first_day]} to {_DAYS[self.last_day]}"
        )


@dataclass(frozen=True, slots=True)
class FromNetwork:
    """`network:office`: the request comes from one of the named networks."""

    name: str
    ranges: Ranges

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Met if the caller's address lies in a range, however either is spelled (`addresses.lies_in`)."""
        inside = lies_in(facts.caller.address if facts.caller else None, self.ranges)
        if inside:
            return ConditionResult(networks=self.ranges)
        reason = Reason(
            "outside_network",
            f"Your request does not come from the network {self.name!r}.",
            f"Connect from {self.name!r}, then try again.",
            "you",
            temporary=True,
        )
        return ConditionResult(reason, unknown=inside is None)


@dataclass(frozen=True, slots=True)
class EvidenceHeld:
    """`evidence:soc2` or `agreement:baa`: the vendor's due diligence. No fact says so yet, so it is never met."""

    sort: str
    name: str

    def check(self, facts: Facts, now: datetime) -> ConditionResult:
        """Unknowable, hence a denial where a rule allows."""
        reason = _for_others(
            f"{self.sort}_missing",
            f"The vendor has no valid {self.sort} {self.name!r} on file.",
            "Ask your vendor's lead to have it added.",
        )
        return ConditionResult(reason, unknown=True)


class UnknownCondition(ValueError):
    """The text names no condition of the vocabulary, or names one wrongly."""


def parse(text: str, networks: Networks) -> Condition:
    """The condition a word of a rule stands for.

    Raises:
        UnknownCondition: saying why.
    """
    for pattern, build in _VOCABULARY:
        match = pattern.fullmatch(text)
        if match:
            return build(match, networks)
    raise UnknownCondition(f"unknown condition {text!r}")


_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = "|".join(_DAYS)


def _seconds(number: str, unit: str) -> int:
    seconds = int(number) * _UNITS[unit]
    if seconds > MAX_SECONDS:
        raise UnknownCondition(f"{number}{unit} is longer than a day")
    return seconds


def _hours(match: re.Match[str], networks: Networks) -> Condition:
    first, last, start, end, zone = match.groups()
    try:
        if zone in _HOST_ZONES:
            raise ValueError(zone)
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownCondition(f"unknown time zone {zone!r}") from error
    window = Hours(
        int(start),
        int(end),
        zone,
        _DAYS.index(first) if first else 0,
        _DAYS.index(last) if last else 6,
    )
    if not 0 <= window.start < window.end <= 24 or window.first_day > window.last_day:
        raise UnknownCondition(f"{match[0]!r} is an empty window")
    return window


def _network(match: re.Match[str], networks: Networks) -> Condition:
    name = match[1]
    if name not in networks:
        raise UnknownCondition(f"network {name!r} is not in networks.csv")
    return FromNetwork(name, networks[name])


_Builder = Callable[[re.Match[str], Networks], Condition]
_VOCABULARY: tuple[tuple[re.Pattern[str], _Builder], ...] = (
    (re.compile(f"mfa<={_DURATION}"), lambda match, _: FactorFresh(_seconds(match[1], match[2]))),
    (re.compile(f"ttl<={_DURATION}"), lambda match, _: LifetimeAtMost(_seconds(match[1], match[2]))),
    (re.compile(rf"hours:(?:({_DAY})-({_DAY})@)?([0-9]{{2}})-([0-9]{{2}})/({_ZONE}(?:/{_ZONE}){{0,2}})"), _hours),
    (re.compile(r"network:([a-z][a-z0-9-]{0,31})"), _network),
    (re.compile(r"(evidence|agreement):([a-z][a-z0-9-]{0,31})"), lambda match, _: EvidenceHeld(match[1], match[2])),
)


def _for_caller(code: str, sentence: str, advice: str) -> Reason:
    return Reason(code, sentence, advice, "you")


def _factor(code: str, sentence: str, advice: str) -> Reason:
    return Reason(code, sentence, advice, "you", temporary=True, factor=True)


def _for_others(code: str, sentence: str, advice: str) -> Reason:
    return Reason(code, sentence, advice, "someone")


def _duration(seconds: int) -> str:
    if seconds >= 600:
        seconds -= seconds % 60
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
