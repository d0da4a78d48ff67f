"""What the shell offers after TAB: names of things at the installation. Bounded, never asks, silent on any failure.

Shells read what they are offered as code of theirs, so nothing that others wrote reaches them but plain words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer

from guestkey.cli import config, tokens
from guestkey.cli.faults import Fault
from guestkey.cli.output import find

SECONDS = 1.0
_MOST = 100
_LONGEST = 60
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
Completion = Callable[[typer.Context, str], list[tuple[str, str]]]


def names(path: str, key: str = "id", about: str = "") -> Completion:
    """A completion that lists what the API has at a path.

    Args:
        key: the member to complete with.
        about: the member shown beside it, if the shell shows any.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        items = _listed(path, ctx.params.get("url"))
        found = [(str(item.get(key, "")), plain(str(item.get(about, "") or ""))) for item in items]
        return [(name, said) for name, said in found if name.startswith(incomplete) and _NAME.fullmatch(name)]

    return complete


def of_dataset(member: str, key: str = "") -> Completion:
    """A completion of what one dataset has, such as its roles; of the one that was typed.

    Args:
        key: the member of each to complete with; left out where each is a word itself.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        # Behind an option whose value is still missing, arguments are not told apart yet: the dataset comes first.
        typed = ctx.params.get("dataset") or next(iter(ctx.args), None)
        if not isinstance(typed, str) or _NAME.fullmatch(typed) is None:
            return []
        found = _answer(f"/datasets/{typed}", ctx.params.get("url")).get(member)
        each = [str(find(item, key) if key else item) for item in found] if isinstance(found, list) else []
        return [(name, "") for name in each if name.startswith(incomplete) and _NAME.fullmatch(name)]

    return complete


def words(*known: str) -> Callable[[str], list[str]]:
    """A completion of words that never change."""
    return lambda incomplete: [word for word in known if word.startswith(incomplete)]


def plain(text: str) -> str:
    """Letters, digits, blanks and `.,-` of a text: nothing that a shell would take for more than text."""
    kept = "".join(character if character.isalnum() or character in ".,-" else " " for character in text)
    return " ".join(kept.split())[:_LONGEST]


def _listed(path: str, wanted: str | None) -> list[dict[str, Any]]:
    items = _answer(f"{path}{'&' if '?' in path else '?'}limit={_MOST}", wanted).get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _answer(path: str, wanted: str | None) -> dict[str, Any]:
    # Imported on TAB only: most commands complete nothing.
    import httpx

    from guestkey.cli import network

    try:
        url = config.installation_url(wanted)
        token = tokens.load(url)
        if token is None:
            return {}
        with network.client(url, {"Authorization": f"Bearer {token}"}, SECONDS) as client:
            answer = client.get(f"/api/v1{path}")
        found = answer.json() if answer.is_success else {}
    except (Fault, OSError, httpx.HTTPError, httpx.InvalidURL, ValueError):
        # Nothing to offer: the shell goes on, and running the command says what is wrong.
        return {}
    return found if isinstance(found, dict) else {}


DATASETS = names("/datasets", "slug", "title")
REQUESTS = names("/requests", "id", "purpose")
GRANTS = names("/grants", "id", "dataset")
LEASES = names("/leases", "id", "dataset")
PEOPLE = names("/people", "id", "name")
VENDORS = names("/vendors", "id", "name")
PROPOSALS = names("/proposals", "id", "act")
ROLES = of_dataset("roles")
SLICES = of_dataset("slices", "name")
KINDS = names("/kinds", "name", "about")
ACTIONS = words("read", "write")
