"""Time of `decide` at 10, 1,000 and 10,000 rules (20 per role and action), against the plain pycasbin enforcer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

import casbin
from casbin.model import Model

import broker.policies
from broker.policies import (
    CallerFacts,
    DatasetFacts,
    Facts,
    GrantFacts,
    Rules,
    SliceFacts,
    VendorFacts,
    decide,
)

NOW = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
GRAMMAR = (Path(broker.policies.__file__).parent / "access.conf").read_text()
PLAIN = """
[request_definition]
r = sub, obj, slice, act
[policy_definition]
p = sub, obj, slice, act, conditions, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && r.obj == p.obj && r.slice == p.slice && r.act == p.act
"""


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds."""

    rules: int
    decide: float
    plain: float


def run(sizes: tuple[int, ...] = (10, 1_000, 10_000)) -> list[Row]:
    """Measure each size: both sides get the same rules and the same allowed question."""
    rows = []
    for size in sizes:
        lines = [
            (f"role:r{n // 20}", f"label:team:t{n % 20}", "deidentified", "read", "mfa<=15m ttl<=1h", "allow")
            for n in range(size)
        ]
        rules = Rules.parse(GRAMMAR, "\n".join(", ".join(line) for line in lines), "", 1)
        last = lines[-1]
        facts = _facts(last[0], last[1].removeprefix("label:"))
        assert decide(facts, rules, NOW).allowed
        model = Model()
        model.load_model_from_text(PLAIN)
        plain = casbin.Enforcer(model)
        plain.add_policies([list(line) for line in lines])
        assert plain.enforce(*last[:4])
        repeats = 2000 if size < 10_000 else 500
        rows.append(
            Row(
                size,
                _median(lambda facts=facts, rules=rules: decide(facts, rules, NOW), repeats),
                _median(lambda plain=plain, last=last: plain.enforce(*last[:4]), max(10, 20_000 // size)),
            )
        )
    return rows


def _median(call: object, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = perf_counter()
        call()  # type: ignore[operator]
        times.append((perf_counter() - began) * 1000)
    return median(times)


def _facts(role: str, label: str) -> Facts:
    year = timedelta(days=365)
    return Facts(
        CallerFacts("person:p", "active", "v", NOW, True, "127.0.0.1"),
        VendorFacts("v", "active"),
        DatasetFacts(
            "d", "d", "active", frozenset({label}), None, True, (SliceFacts("deidentified", True, frozenset({"read"})),)
        ),
        (GrantFacts("g", role, "person:p", NOW - year, NOW + year),),
        "read",
        "deidentified",
        lifetime=900,
    )


def main() -> None:
    """Print the table."""
    print(f"{'rules':>8} {'decide ms':>10} {'plain ms':>10} {'ratio':>8}")
    for row in run():
        print(f"{row.rules:>8} {row.decide:>10.4f} {row.plain:>10.4f} {row.plain / row.decide:>7.1f}x")


if __name__ == "__main__":
    main()
