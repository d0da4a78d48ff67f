"""The recipe for a noun in CONTRIBUTING.md holds: at most eight files, five of them new, and those to copy exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add a noun\n")[2].partition("\n## ")[0]


def named() -> list[str]:
    """Every path in the recipe."""
    return re.findall(r"`((?:broker|models|docs|tests)/[^`]+)`", RECIPE)


def test_recipe_names_five_new_files() -> None:
    assert len([path for path in named() if "<noun>" in path]) == 5


def test_files_to_copy_and_to_change_exist() -> None:
    existing = [path for path in named() if "<noun>" not in path]
    assert len(existing) > 5
    assert [path for path in existing if not (ROOT / path).exists()] == []


def test_vendor_is_made_of_the_files_of_the_recipe() -> None:
    made = [path for path in named() if "<noun>" in path]
    forms = {"models/": "vendor", "broker/": "vendors", "broker/web/templates/": "admin/vendors"}
    for path in made:
        longest = max((start for start in forms if path.startswith(start)), key=len)
        assert (ROOT / path.replace("<noun>", forms[longest])).is_file(), path
