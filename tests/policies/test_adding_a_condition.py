"""The recipe in CONTRIBUTING.md holds: its files exist, and every word of the vocabulary is in the guide."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.policies import conditions

ROOT = Path(__file__).parents[2]
NETWORKS = {"office": ()}


def section(file: str, heading: str) -> str:
    """The text below a heading."""
    return (ROOT / file).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


def words_in_guide() -> list[str]:
    """The first cell of each row in the guide's table of conditions."""
    return re.findall(r"^\| `([^`]+)`", section("docs/policy.md", "Conditions"), re.MULTILINE)


def test_recipe_names_files_that_exist() -> None:
    named = re.findall(
        r"`((?:policies|broker|docs|tests)/[^`]+)`", section("CONTRIBUTING.md", "How to add a condition")
    )
    assert [path for path in named if not (ROOT / path).is_file()] == []
    # The table of tests comes with the rules it tests.
    assert len(set(named) - {"policies/tests.csv"}) <= 6


@pytest.mark.parametrize("word", words_in_guide())
def test_word_in_guide_is_a_condition(word: str) -> None:
    conditions.parse(word, NETWORKS)


def test_every_condition_is_in_the_guide() -> None:
    words = words_in_guide()
    unmatched = [
        pattern.pattern for pattern, _ in conditions._VOCABULARY if not any(pattern.fullmatch(word) for word in words)
    ]
    assert unmatched == []
