"""What the edges leave to the rooms, read from the source: they query no records and refuse nobody."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import broker

_BROKER = Path(broker.__file__).parent
_EDGES = ("web", "oauth")
_QUERIES = frozenset({"select", "insert", "update", "delete", "exists", "func", "text"})


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for edge in _EDGES:
        for path in sorted((_BROKER / edge).rglob("*.py")):
            yield str(path.relative_to(_BROKER)), ast.parse(path.read_text())


def _imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            yield from (alias.name for alias in node.names)


def _called(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def test_edges_query_no_records() -> None:
    asking = {name for name, module in _modules() if _QUERIES & set(_imported(module))}
    assert not asking, "a query belongs to the room of what it is about"


def test_edges_decide_no_permission() -> None:
    deciding = {name for name, module in _modules() if "Forbidden" in _called(module)}
    assert not deciding, "who may do what is said in broker/identity/permissions.py, or in the room"
