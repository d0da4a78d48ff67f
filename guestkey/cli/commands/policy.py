"""`policy`: rules are files; check and test them here, compare with what is in force, propose them."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from guestkey.cli.api import Json
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands import server
from guestkey.cli.faults import Code, Fault, unreadable
from guestkey.cli.output import columns
from guestkey.cli.words import safe

FILES = ("rules", "networks")
LARGEST_FILE = 1024 * 1024
Folder = Annotated[Path, typer.Argument(help="The folder that holds rules.csv, networks.csv and tests.csv.")]


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is done with rules."""
    policies = groups["policy"]
    verb(policies, "check", of="policy")(check)
    verb(policies, "test", of="policy")(test)
    verb(policies, "diff", of="policy")(diff)
    verb(policies, "apply", of="policy")(apply)
    verb(policies, "show", of="policy")(show)


def check(cli: Cli, folder: Folder = Path("policies")) -> None:
    """Check every line of the rules; offline where the server is installed."""
    texts = _read(folder)
    checked = _offline("check", folder, texts) if _server_installed() else cli.api.post("/policy/check", texts)
    cli.out.done(f"{checked.get('rules')} rules are valid.", checked)


def test(cli: Cli, folder: Folder = Path("policies")) -> int:
    """Run the policy's table of tests against the rules; on the server's installation. Exit code 1: one failed."""
    texts = {**_read(folder), "tests": _read_one(folder / "tests.csv")}
    tested = _offline("test", folder, texts)
    for one in tested["failed"]:
        line = f"tests.csv line {one['line']} ({one['name']}): expected {one['expected']}, got {one['actual']}"
        cli.out.remark(safe(line))
    cli.out.done(f"{tested['passed']} of {tested['total']} policy tests passed.", tested)
    return Code.DONE if tested["total"] and not tested["failed"] else Code.FAULT


def diff(cli: Cli, folder: Folder = Path("policies")) -> None:
    """Show what the files would change in the policy in force."""
    current, texts = cli.api.get("/policy"), _read(folder)
    lines = [line for name in FILES for line in _difference(name, str(current.get(name) or ""), texts[name])]
    if cli.as_json:
        cli.out.document({"revision": current.get("revision"), "same": not lines, "difference": lines})
    elif lines:
        for line in lines:
            cli.out.value(line)
    else:
        cli.out.remark(f"The files are the same as revision {current.get('revision')}.")


def apply(cli: Cli, folder: Folder = Path("policies")) -> None:
    """Propose the files as the next policy; it takes effect once a second admin approves."""
    proposal = cli.api.post("/policy/proposals", _read(folder))
    cli.out.facts(columns("proposal=id, state, lapses=lapses_at@"), proposal)
    cli.out.remark(f"Another admin must approve it. Next, for them: guestkey proposal approve {proposal.get('id')}")


def show(cli: Cli) -> None:
    """Show the policy in force."""
    policy = cli.api.get("/policy")
    if cli.as_json:
        cli.out.document(policy)
        return
    cli.out.remark(f"Revision {policy.get('revision')}")
    for name in FILES:
        cli.out.value(f"# {name}.csv\n{str(policy.get(name) or '').rstrip()}")


def _offline(what: str, folder: Path, texts: Json) -> Json:
    """Check or test here, with what the server decides by.

    Raises:
        Fault: a line is wrong, and so all of them; or the server is not installed here.
    """
    grammar = folder / "access.conf"
    own = {"access": _read_one(grammar)} if grammar.exists() else {}
    found: Json = getattr(server.operators("policy"), what)({**texts, **own})
    if "errors" in found:
        problem = {"code": "rules_invalid", "errors": [{"detail": said} for said in found["errors"]]}
        raise Fault(Code.USAGE, "None of the rules was accepted.", problem=problem)
    return found


def _read(folder: Path) -> Json:
    return {name: _read_one(folder / f"{name}.csv") for name in FILES}


def _read_one(file: Path) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise Fault(Code.USAGE, f"{file} is too large for a policy.", next_step="Check the folder.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def _difference(name: str, before: str, after: str) -> list[str]:
    file = f"{name}.csv"
    return list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), f"in force/{file}", f"here/{file}", lineterm="")
    )


def _server_installed() -> bool:
    return "casbin" in sys.modules or importlib.util.find_spec("casbin") is not None
