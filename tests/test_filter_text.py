"""Row filters as text: what is written is read as the same filter, and what could be read in two ways is refused."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.base.filter_text import (
    FilterSyntaxError,
    read_condition,
    read_value,
    read_values,
    write_condition,
    write_value,
)

HARD = [
    "12345",
    '"Paris"',
    "= Paris",
    "Ulm, Nord",
    " x ",
    "",
    '"',
    "<b>",
    "a\nb",
    "\u200b",
    "O'Hara",
    "true",
    "\\",
    "é",
]
texts = st.one_of(st.sampled_from(HARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
numbers = st.one_of(st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False), st.booleans())


@given(texts, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
def test_condition_text_round_trips(value: str, operator: str) -> None:
    row = ["site", operator, value]
    assert read_condition(write_condition(row)) == row
    assert read_condition(shlex.split(shlex.quote(write_condition(row)))[0]) == row


@given(st.lists(texts, min_size=1, max_size=6))
def test_list_text_round_trips(values: list[str]) -> None:
    assert read_condition(write_condition(["site", "in", values])) == ["site", "in", values]


@given(numbers)
def test_numbers_and_booleans_are_written_as_text(value: float | bool) -> None:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    assert read_value(write_value(value)) == text


@given(texts)
def test_invisible_characters_are_escaped(value: str) -> None:
    assert all(character.isprintable() for character in write_value(value))


def test_values_with_commas_are_quoted() -> None:
    assert read_condition('site in "Ulm, Nord",Bonn') == ["site", "in", ["Ulm, Nord", "Bonn"]]
    assert read_values(' a ,"b" , c d') == ["a", "b", "c d"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "berlin", "Site=1", "a b=1", "site like x", "1=1", "site=", "site in ", "site in a,,b", "site in a,"),
        *('site="x', 'site="x" y', 'site in "a" b', "site==x", "site is null x", 'site="\\q"', "age=<3"),
    ],
)
def test_text_other_than_one_condition_is_refused(text: str) -> None:
    with pytest.raises(FilterSyntaxError):
        read_condition(text)
