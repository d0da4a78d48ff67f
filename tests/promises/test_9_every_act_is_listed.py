"""Promise 9: docs/who-may-open-what.md lists every act that changes something, and each act for two has its test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from broker.operator.main import app as operator
from broker.registry.proposals import OWNER_ACTS
from broker.web.api.proposals import PERFORMERS
from tests.web.conftest import Replica, replica

__all__ = ["replica"]
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "who-may-open-what.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([^`]+)`")


def _table(title: str) -> list[list[str]]:
    """The cells of a section's table, line by line, without its heading."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _listed(title: str) -> list[str]:
    return [name for line in _table(title) for name in CODE.findall(line[0])]


def _changing(router: Any) -> Iterator[APIRoute]:
    """The routes of an application or router that change something, and those of the routers in it."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            if (route.methods or set()) - {"GET", "HEAD", "OPTIONS"}:
                yield route
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from _changing(inner)


def _is_page(route: APIRoute) -> bool:
    return not route.operation_id


def test_every_mutating_api_route_is_listed_once(replica: Replica) -> None:
    acts = [str(route.operation_id) for route in _changing(replica.app) if not _is_page(route)]
    listed = _listed("Acts of the API")
    assert len(acts) > 70 and len(listed) == len(set(listed)), "an act is listed twice"
    assert set(listed) == set(acts)


def test_every_portal_form_is_listed_with_its_api_route(replica: Replica) -> None:
    forms = {route.path for route in _changing(replica.app) if _is_page(route)}
    assert len(forms) > 50 and set(_listed("Pages")) == forms
    acts = set(_listed("Acts of the API"))
    named = {name for line in _table("Pages") for name in CODE.findall(line[1]) if not name.startswith("/")}
    assert named <= acts


def test_every_command_of_the_server_is_listed() -> None:
    commands = {
        command.name or str(getattr(command.callback, "__name__", "")).replace("_", "-")
        for command in operator.registered_commands
    }
    groups = {
        str(group.name or (group.typer_instance and group.typer_instance.info.name))
        for group in operator.registered_groups
    }
    assert set(_listed("Commands on the server")) == commands | groups


def test_every_two_person_change_names_a_test_refusing_one_person() -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_9_*.py"))
    for line in _table("Acts of the API"):
        if line[3].startswith("two"):
            named = [name for name in CODE.findall(line[3]) if name.startswith("test_")]
            assert named, f"{line[0]} takes two, and names no test"
            assert all(f"def {name}(" in tests for name in named), (line[0], named)


def test_every_proposed_change_is_marked() -> None:
    """An act that is proposed but not marked as taking two would be one that nobody tested."""
    marked = " ".join(line[0] for line in _table("Acts of the API") if line[3].startswith("two"))
    operations = {
        "bind_source": "propose_source",
        "trust_source_mfa": "propose_trust_mfa",
        "reset_factor": "propose_factor_reset",
        "apply_policy": "propose_policy",
        "rotate_secret": "rotate_service_secret",
        "add_member": "add_team_member",
    }
    assert {act for act in PERFORMERS if f"`{operations.get(act, act)}`" not in marked} == set()
    assert PERFORMERS.keys() >= OWNER_ACTS
