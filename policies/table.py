"""Table-driven policy tests, kept beside the rules: `policies/tests.csv`, run by `guestkey policy test`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO

from .decide import decide
from .facts import CallerFacts, DatasetFacts, Facts, GrantFacts, SliceFacts, VendorFacts
from .rules import Rules

COLUMNS = ("name", "role", "labels", "slice", "action", "factor_age", "lifetime", "address", "at", "expected")


@dataclass(frozen=True, slots=True)
class TableResult:
    """One line's result: what was expected and what the gate said (`allow`, or reason codes joined by `+`)."""

    name: str
    line: int
    expected: str
    actual: str

    @property
    def passed(self) -> bool:
        """Whether the gate said what was expected."""
        return self.expected == self.actual


def run_table(rules: Rules, table: str) -> list[TableResult]:
    """Decide every line of a table; everything the columns do not name is in order.

    Columns: name; role without prefix; labels separated by blanks; slice; action; factor_age in seconds (empty: no
    factor; `service`: the caller is one); lifetime asked in seconds or empty; address; at (ISO 8601); expected.

    Raises:
        ValueError: a line is malformed; the text names it.
    """
    results = []
    reader = csv.DictReader(StringIO("\n".join(_content(table))), skipinitialspace=True)
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ValueError(f"the columns are: {', '.join(COLUMNS)}")
    for number, row in enumerate(reader, start=2):
        try:
            facts, now = _facts(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"test {number - 1} ({row.get('name')!r}): {error}") from error
        decision = decide(facts, rules, now)
        actual = "allow" if decision.allowed else "+".join(sorted(reason.code for reason in decision.reasons))
        results.append(TableResult(row["name"], number, row["expected"], actual))
    return results


def _content(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.strip() and not line.startswith("#")]


def _facts(row: dict[str, str]) -> tuple[Facts, datetime]:
    now = datetime.fromisoformat(row["at"])
    service = row["factor_age"] == "service"
    factor_at = None if service or not row["factor_age"] else now - timedelta(seconds=int(row["factor_age"]))
    subject = "service:tested" if service else "person:tested"
    year = timedelta(days=365)
    slices = sorted({"deidentified", "full", row["slice"]} - {""})
    return (
        Facts(
            caller=CallerFacts(subject, "active", "vn_tested", factor_at, True, row["address"] or None),
            vendor=VendorFacts("vn_tested", "active"),
            dataset=DatasetFacts(
                "ds_tested",
                "tested",
                "active",
                frozenset(row["labels"].split()),
                None,
                True,
                tuple(SliceFacts(name, True, frozenset({"read", "write"})) for name in slices),
            ),
            grants=(GrantFacts("gr_tested", f"role:{row['role']}", subject, now - year, now + year),),
            action=row["action"],
            slice=row["slice"] or None,
            lifetime=int(row["lifetime"]) if row["lifetime"] else None,
        ),
        now,
    )
