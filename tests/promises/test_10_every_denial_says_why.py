"""Promise 10: every denial says why and what to do next."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker
from broker.base import errors
from broker.base.errors import Denied, GuestkeyError
from broker.gate.facts import Ask
from broker.leases.issuing import issue
from broker.policies import conditions, reasons
from tests.support.world import World

DOCS = Path(broker.__file__).parents[1] / "docs" / "policy.md"


def codes_in_code() -> set[str]:
    """The first argument of every reason made in the gate's source, where it is text."""
    found = set()
    for module in (conditions, reasons):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("Reason", "_factor", "_for_caller", "_for_others")
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def test_every_reason_code_is_documented() -> None:
    codes = codes_in_code()
    assert len(codes) > 30
    text = DOCS.read_text()
    assert [code for code in sorted(codes) if f"`{code}`" not in text] == []


def denials(world: World) -> Iterator[GuestkeyError]:
    """Real refusals of issuing, one of each sort."""
    vendor, other = world.vendor(), world.vendor("suspended")
    dataset = world.dataset(vendor, other)
    nobody, late = world.person(vendor, factor_age=None), world.person(other)
    held, fine = world.person(vendor, factor_age=None), world.person(vendor)
    world.grant(dataset, held)
    world.grant(dataset, fine)
    asks = [
        (nobody, Ask(dataset.slug)),
        (late, Ask(dataset.slug)),
        (held, Ask(dataset.slug, slice="deidentified")),
        (fine, Ask(dataset.slug, slice="full")),
        (fine, Ask(dataset.slug, slice="nowhere")),
        (fine, Ask(dataset.slug, action="write")),
        (fine, Ask(dataset.slug, slice="deidentified", lifetime=10**9)),
        (fine, Ask("nowhere")),
        (fine, Ask(dataset.slug, kind="magic")),
    ]
    for signed, ask in asks:
        with pytest.raises(GuestkeyError) as refused:
            issue(world.parts, signed.caller, ask)
        yield refused.value


def test_real_denials_say_why_and_what_to_do(world: World) -> None:
    seen = list(denials(world))
    assert len({type(error) for error in seen}) >= 4
    for error in seen:
        if isinstance(error, Denied):
            assert error.decision.reasons
            for reason in error.decision.reasons:
                assert reason.sentence.endswith(".")
                assert reason.advice.endswith((".", "`."))
                assert reason.who in ("you", "time", "someone")
        else:
            assert error.detail
            assert error.advice


def test_errors_do_not_depend_on_http() -> None:
    source = inspect.getsource(errors)
    assert "status" not in source
    assert "fastapi" not in source
