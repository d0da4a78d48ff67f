"""`guestkey policy check` and `test` on the texts of files: no server, no network, nothing is put in force."""

from __future__ import annotations

import dataclasses
from typing import Any

from broker.policies import Rules, RulesInvalid, run_table
from broker.runtime.rulebook import shipped


def check(texts: dict[str, str]) -> dict[str, Any]:
    """How many rules there are; or `errors`, what is wrong with each line, and so with all of them."""
    try:
        return {"rules": len(_parsed(texts).rules)}
    except RulesInvalid as error:
        return {"errors": [str(problem) for problem in error.errors]}


def test(texts: dict[str, str]) -> dict[str, Any]:
    """How many lines of the table of tests hold, and each that does not; or `errors`, as `check`."""
    if "errors" in (found := check(texts)):
        return found
    try:
        outcomes = run_table(_parsed(texts), texts["tests"])
    except ValueError as error:
        return {"errors": [f"tests.csv: {error}"]}
    failed = [dataclasses.asdict(outcome) for outcome in outcomes if not outcome.passed]
    return {"passed": len(outcomes) - len(failed), "total": len(outcomes), "failed": failed}


def _parsed(texts: dict[str, str]) -> Rules:
    return Rules.parse(texts.get("access") or shipped()[0], texts["rules"], texts["networks"], 0)
