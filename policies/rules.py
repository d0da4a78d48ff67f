"""The rules: parsed as a whole or refused as a whole, then answered by small Casbin enforcers.

Casbin decides over exactly the rules that could apply to a question: those naming its role, action, slice and one
of the dataset's targets. That bucket is a handful of lines however long the rule file is.
"""

from __future__ import annotations

import csv
import re
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import StringIO
from ipaddress import IPv4Network, IPv6Network
from threading import Lock

import casbin
from casbin.model import Model

from broker.base.addresses import parse_network

from .conditions import Condition, ConditionResult, LifetimeAtMost, Networks, UnknownCondition, parse
from .facts import Facts

FIELDS = ("role", "target", "slice", "action", "conditions", "effect")
ACTIONS = ("read", "write")
ANY = "*"
_ROLE = re.compile(r"role:[a-z][a-z0-9-]{0,47}")
_TARGET = re.compile(r"dataset:[a-z][a-z0-9-]{0,62}|label:[a-z][a-z0-9-]{0,30}:[a-z0-9][a-z0-9-]{0,30}")
_SLICE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_BUCKETS_KEPT = 4096
_ANSWERS_KEPT = 256


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong line: its number (from 1), the file, and what is wrong."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file} line {self.line}: {self.what}"


class RulesInvalid(ValueError):
    """At least one line is wrong, so none of them counts. `errors` names each."""

    def __init__(self, errors: Iterable[Problem]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(map(str, self.errors)))


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of least-privilege policy."""

    role: str
    target: str
    slice: str
    action: str
    conditions: str
    effect: str
    line: int = field(compare=False, default=0)

    def allows(self, slice_name: str) -> bool:
        """Whether it allows something on a slice of that name."""
        return self.effect == "allow" and self.applies_to(slice_name)

    def applies_to(self, slice_name: str) -> bool:
        """Whether it is about a slice of that name."""
        return self.slice in (ANY, slice_name)

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions it is about."""
        return ACTIONS if self.action == ANY else (self.action,)

    def __str__(self) -> str:
        return ", ".join((self.role, self.target, self.slice, self.action, self.conditions, self.effect))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say to one question: Casbin's answer, the rules that apply, and what each candidate lacked."""

    allowed: bool
    allowing: tuple[Rule, ...]
    denying: tuple[Rule, ...]
    candidates: tuple[tuple[Rule, tuple[ConditionResult, ...]], ...]


class Rules:
    """A revision of the rules. Immutable; safe to share between threads."""

    def __init__(self, grammar: str, rules: tuple[Rule, ...], networks: Networks, revision: int) -> None:
        self.rules = rules
        self.revision = revision
        self._grammar = grammar
        self._conditions: dict[str, tuple[Condition, ...]] = {
            text: tuple(parse(word, networks) for word in text.split()) for text in {rule.conditions for rule in rules}
        }
        self._by_role_action: dict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in rules:
            for action in rule.actions:
                self._by_role_action[rule.role, action].append(rule)
        self._buckets: OrderedDict[tuple[str, str, str, frozenset[str]], _Bucket] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def parse(cls, grammar: str, rules_csv: str, networks_csv: str, revision: int) -> Rules:
        """Read grammar, rules and networks.

        Raises:
            RulesInvalid: naming every wrong line; nothing is accepted in part.
        """
        problems: list[Problem] = []
        networks = _parse_networks(networks_csv, problems)
        rules = _parse_rules(rules_csv, networks, problems)
        try:
            # Reading the text alone would pass one without sections.
            _enforcer(grammar, ())
        except Exception as error:  # noqa: BLE001  casbin raises bare exceptions; any of them means: refuse
            problems.append(Problem("access.conf", 1, f"not a Casbin model: {type(error).__name__}"))
        if problems:
            raise RulesInvalid(problems)
        return cls(grammar, tuple(rules), networks, revision)

    def evaluate(self, role: str, slice_: str, facts: Facts, now: datetime) -> Verdict:
        """What the rules say for one role and slice, given the facts."""
        if facts.dataset is None:
            return Verdict(False, (), (), ())
        bucket = self._bucket(role, facts.action, slice_, facts.dataset.targets)
        held = {
            text: tuple(condition.check(facts, now) for condition in self._conditions[text]) for text in bucket.texts
        }
        return bucket.evaluate(role, facts.dataset.targets, slice_, facts.action, held)

    def for_dataset(self, slug: str, labels: Iterable[str]) -> tuple[Rule, ...]:
        """Every rule that is about a dataset, by its slug or one of its labels."""
        targets = {f"dataset:{slug}", *(f"label:{label}" for label in labels)}
        return tuple(rule for rule in self.rules if rule.target in targets)

    def check_conditions(self, rule: Rule, facts: Facts, now: datetime) -> tuple[tuple[str, ConditionResult], ...]:
        """Each condition of one of these rules, as it is written, and whether the facts meet it."""
        words = zip(rule.conditions.split(), self._conditions[rule.conditions], strict=True)
        return tuple((word, condition.check(facts, now)) for word, condition in words)

    def diff(self, other: Rules) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        """Rules that `other` lacks, and rules only `other` has."""
        ours, theirs = set(self.rules), set(other.rules)
        return (
            tuple(rule for rule in self.rules if rule not in theirs),
            tuple(rule for rule in other.rules if rule not in ours),
        )

    def _bucket(self, role: str, action: str, slice_: str, targets: frozenset[str]) -> _Bucket:
        key = (role, action, slice_, targets)
        with self._lock:
            known = self._buckets.get(key)
            if known is not None:
                return known
        rules = tuple(
            rule
            for rule in self._by_role_action.get((role, action), ())
            if rule.target in targets and rule.slice in (slice_, ANY)
        )
        made = _Bucket(self._grammar, rules)
        with self._lock:
            self._buckets[key] = made
            if len(self._buckets) > _BUCKETS_KEPT:
                self._buckets.popitem(last=False)
        return made


class _Bucket:
    """The few rules that could apply to one question, and the enforcer that decides over them."""

    def __init__(self, grammar: str, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.texts = frozenset(rule.conditions for rule in rules)
        self._enforcer = _enforcer(grammar, rules) if rules else None
        self._answers: dict[tuple[bool, ...], bool] = {}

    def evaluate(
        self,
        role: str,
        targets: frozenset[str],
        slice_: str,
        action: str,
        held: Mapping[str, tuple[ConditionResult, ...]],
    ) -> Verdict:
        if self._enforcer is None:
            return Verdict(False, (), (), ())
        holding = tuple(_holds(held, rule.conditions, rule.effect) for rule in self.rules)
        # Within a bucket Casbin's answer depends on nothing but which rules' conditions hold.
        allowed = self._answers.get(holding)
        if allowed is None:
            allowed = self._enforcer.enforce(role, targets, slice_, action, held) is True
            if len(self._answers) < _ANSWERS_KEPT:
                self._answers[holding] = allowed
        applying = [rule for rule, holds in zip(self.rules, holding, strict=True) if holds]
        return Verdict(
            allowed,
            tuple(rule for rule in applying if rule.effect == "allow"),
            tuple(rule for rule in applying if rule.effect == "deny"),
            tuple((rule, held[rule.conditions]) for rule in self.rules if rule.effect == "allow"),
        )


def _enforcer(grammar: str, rules: tuple[Rule, ...]) -> casbin.Enforcer:
    model = Model()
    model.load_model_from_text(grammar)
    enforcer = casbin.Enforcer(model)
    enforcer.add_function("covers", lambda targets, target: target in targets)
    enforcer.add_function("named", lambda asked, named: named in (asked, ANY))
    enforcer.add_function("holds", _holds)
    enforcer.add_policies(
        [[rule.role, rule.target, rule.slice, rule.action, rule.conditions, rule.effect] for rule in rules]
    )
    return enforcer


def _holds(held: Mapping[str, tuple[ConditionResult, ...]], conditions: str, effect: str) -> bool:
    results = held[conditions]
    if effect == "deny":
        return all(result.reason is None or result.unknown for result in results)
    return all(result.reason is None for result in results)


def _parse_rules(text: str, networks: Networks, problems: list[Problem]) -> list[Rule]:
    rules: list[Rule] = []
    seen: dict[Rule, int] = {}
    for line, fields in _lines(text, "rules.csv", problems):
        if len(fields) != len(FIELDS):
            problems.append(Problem("rules.csv", line, f"{len(fields)} fields instead of {', '.join(FIELDS)}"))
            continue
        role, target, slice_, action, conditions, effect = fields
        rule = Rule(role, target, slice_, action, conditions, effect, line)
        wrong = _mistakes(rule, networks)
        if rule in seen:
            wrong.append(f"is the same as line {seen[rule]}")
        seen.setdefault(rule, line)
        problems.extend(Problem("rules.csv", line, what) for what in wrong)
        rules.append(rule)
    if not rules and not problems:
        problems.append(Problem("rules.csv", 1, "there are no rules, so no one would have access"))
    return rules


def _mistakes(rule: Rule, networks: Networks) -> list[str]:
    wrong = []
    any_allowed = (ANY,) if rule.effect == "deny" else ()
    if _ROLE.fullmatch(rule.role) is None:
        wrong.append(f"role {rule.role!r} is not role:<name>")
    if _TARGET.fullmatch(rule.target) is None:
        wrong.append(f"target {rule.target!r} is neither dataset:<slug> nor label:<name>:<value>")
    if rule.slice not in any_allowed and _SLICE.fullmatch(rule.slice) is None:
        wrong.append(f"slice {rule.slice!r} is not a name (`*` only where the effect is deny)")
    if rule.action not in (*ACTIONS, *any_allowed):
        wrong.append(f"action {rule.action!r} is not one of {', '.join(ACTIONS)} (`*` only where the effect is deny)")
    if rule.effect not in ("allow", "deny"):
        wrong.append(f"effect {rule.effect!r} is neither allow nor deny")
    return wrong + _mistakes_in_conditions(rule, networks)


def _mistakes_in_conditions(rule: Rule, networks: Networks) -> list[str]:
    wrong, parsed = [], []
    words = rule.conditions.split(" ") if rule.conditions else []
    for word in words:
        try:
            parsed.append(parse(word, networks))
        except UnknownCondition as error:
            wrong.append(str(error))
    if len(set(words)) != len(words):
        wrong.append("a condition is given twice")
    if rule.effect == "allow" and not any(isinstance(condition, LifetimeAtMost) for condition in parsed):
        wrong.append("a rule that allows must bound the lifetime (ttl<=…)")
    return wrong


def _parse_networks(text: str, problems: list[Problem]) -> Networks:
    found: dict[str, list[IPv4Network | IPv6Network]] = defaultdict(list)
    for line, fields in _lines(text, "networks.csv", problems):
        if len(fields) != 2 or re.fullmatch(r"[a-z][a-z0-9-]{0,31}", fields[0]) is None:
            problems.append(Problem("networks.csv", line, "a line is: name, CIDR"))
            continue
        try:
            found[fields[0]].append(parse_network(fields[1]))
        except ValueError as error:
            problems.append(Problem("networks.csv", line, str(error)))
    return {name: tuple(ranges) for name, ranges in found.items()}


def _lines(text: str, file: str, problems: list[Problem]) -> list[tuple[int, list[str]]]:
    """Fields of every line that is neither blank nor a comment; blanks around fields are layout."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(" ") or line.startswith("#"):
            continue
        if not line.isascii() or not line.isprintable():
            problems.append(Problem(file, number, "only printable ASCII is allowed"))
            continue
        if '"' in line:
            problems.append(Problem(file, number, "quotes are not allowed"))
            continue
        fields = next(csv.reader(StringIO(line)))
        found.append((number, [field_.strip(" ") for field_ in fields]))
    return found
