"""The rules in force: loaded from numbered revisions, never stale, changed only by two admins.

Every deciding transaction reads the current revision number under a share lock. A process whose cache lacks that
revision loads it before it answers, so no decision uses a stale rule.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock

import structlog
from sqlalchemy import select, update

from broker import policies
from broker.base.database import Transaction, notify
from broker.base.errors import Invalid, NotFound
from broker.log import audit
from broker.models import PolicyInForce, PolicyRevision, Proposal
from broker.policies import Rules, RulesInvalid
from broker.runtime import chores

log = structlog.get_logger(__name__)
SHIPPED = Path(policies.__file__).parent
CHANGED_CHANNEL = "guestkey_changed"
_KEPT = 4


class Rulebook:
    """Parsed revisions of one process. Thread-safe."""

    def __init__(self) -> None:
        self._parsed: OrderedDict[int, Rules] = OrderedDict()
        self._lock = Lock()

    def at(self, tx: Transaction, revision: int | None) -> Rules | None:
        """The rules of a revision, or None where there is none or it cannot be parsed: the gate then denies."""
        if revision is None:
            return None
        with self._lock:
            known = self._parsed.get(revision)
        if known is not None:
            return known
        row = tx.get(PolicyRevision, revision)
        if row is None:
            return None
        try:
            rules = Rules.parse(row.grammar, row.rules, row.networks, revision)
        except RulesInvalid as error:
            log.error("policy.unusable", revision=revision, problems=[str(problem) for problem in error.errors])
            return None
        with self._lock:
            self._parsed[revision] = rules
            while len(self._parsed) > _KEPT:
                self._parsed.popitem(last=False)
        return rules


def in_force(tx: Transaction) -> PolicyRevision:
    """The revision in force, without a lock: for showing.

    Raises:
        Invalid: there is none yet; `guestkey bootstrap` writes the first.
    """
    current = select(PolicyRevision).join(PolicyInForce, PolicyInForce.revision == PolicyRevision.number)
    row = tx.scalars(current).one_or_none()
    if row is None:
        raise Invalid("No policy is in force yet.", advice="Run `guestkey bootstrap` on the server.")
    return row


def number_in_force(tx: Transaction) -> int | None:
    """The number of the revision in force, or None where there is none yet."""
    return tx.execute(select(PolicyInForce.revision)).scalar_one_or_none()


def revisions(tx: Transaction, limit: int = 100, *, before: int | None = None) -> Sequence[PolicyRevision]:
    """The revisions of the rules, newest first; only those before one if it is named."""
    query = select(PolicyRevision).order_by(PolicyRevision.number.desc()).limit(limit)
    return tx.scalars(query if before is None else query.where(PolicyRevision.number < before)).all()


def revision(tx: Transaction, number: int) -> PolicyRevision:
    """One revision.

    Raises:
        NotFound: there is none of that number.
    """
    row = tx.get(PolicyRevision, number) if 0 < number < 2**31 else None
    if row is None:
        raise NotFound("There is no such revision.")
    return row


def shipped() -> tuple[str, str, str]:
    """The texts that come with this release: grammar, rules, networks."""
    return tuple((SHIPPED / name).read_text() for name in ("access.conf", "rules.csv", "networks.csv"))  # type: ignore[return-value]


def check(rules: str, networks: str) -> Rules:
    """Parse rules against the shipped grammar.

    Raises:
        Invalid: at least one line is wrong, and the detail names each with its number; or something in them hides.
    """
    try:
        parsed = Rules.parse(shipped()[0], rules, networks, 0)
    except RulesInvalid as error:
        raise Invalid(
            "None of the rules was accepted: " + "; ".join(str(problem) for problem in error.errors),
            field="/rules",
            advice="Correct the lines named and check again with `guestkey policy check`.",
            code="rules_invalid",
        ) from error
    for field, text in (("/rules", rules), ("/networks", networks)):
        # The grammar passes comments over, but a second admin reads them.
        if any(not character.isprintable() and character not in "\n\t" for character in text):
            raise Invalid(
                "This contains an invisible or control character.", field=field, advice="Type it again by hand."
            )
    return parsed


def put_in_force(
    tx: Transaction, *, rules: str, networks: str, proposed_by: str | None, approved_by: str | None, now: datetime
) -> int:
    """Write a revision and make it count from this commit on, for every replica's next decision."""
    check(rules, networks)
    row = PolicyRevision(
        rules=rules, networks=networks, grammar=shipped()[0], proposed_by=proposed_by, approved_by=approved_by
    )
    tx.add(row)
    tx.flush()
    changed = tx.execute(update(PolicyInForce).values(revision=row.number).returning(PolicyInForce.singleton)).all()
    if not changed:
        tx.add(PolicyInForce(revision=row.number))
    details = {"revision": row.number, "proposed_by": proposed_by, "approved_by": approved_by}
    actor = f"person:{approved_by}" if approved_by else audit.SYSTEM
    audit.record(tx, "policy.applied", actor=actor, subject=f"policy:{row.number}", now=now, details=details)
    chores.at_once(tx, chores.REDECIDE)
    notify(tx, CHANGED_CHANNEL, "policy")
    return row.number


def apply_policy(tx: Transaction, agreed: Proposal, now: datetime) -> None:
    """The performer of the two-person act `apply_policy`; its details hold `rules` and `networks`."""
    put_in_force(
        tx,
        rules=agreed.details["rules"],
        networks=agreed.details["networks"],
        proposed_by=agreed.proposed_by,
        approved_by=agreed.decided_by,
        now=now,
    )
