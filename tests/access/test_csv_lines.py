"""Files that no spreadsheet runs, however it splits their lines, and that are read back exactly."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.base import csv_lines
from broker.base.csv_lines import Columns

pytestmark = pytest.mark.fast

TRIGGERS = "=+-@|%＝＋－＠"
TEXTS = st.text(st.sampled_from("=+-@|%＝－;,\t\r\n\"' aé"), max_size=12)


def split(text: str, delimiter: str) -> list[str]:
    """The cells that a spreadsheet with this list separator makes of a file."""
    return [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) for cell in row]


@settings(max_examples=400)
@given(st.lists(TEXTS, min_size=1, max_size=3))
@example(["x;=cmd|' /C calc'!A0"])
@example(['x;"=1"', "＝1", "a\n=1", "a\t=1"])
@example(["\t=1", "'=1", "''", ";'=1", '; "=1'])
def test_exported_cells_never_start_a_formula_and_are_read_back_unchanged(values: list[str]) -> None:
    written = csv_lines.line(values)
    for delimiter in ",;\t":
        # What is blank in front may be dropped.
        cells = [cell.lstrip(" \t\r\n") for cell in split(written, delimiter)]
        assert not [cell for cell in cells if cell.startswith(tuple(TRIGGERS))], delimiter
    assert not [cell for cell in split(written, ",") if cell.startswith(("\t", "\r"))]
    assert [csv_lines.plain(cell) for cell in split(written, ",")] == values


@given(TEXTS.filter(lambda text: text.strip() and text == text.strip(" ")))
def test_written_csv_is_read_back_unchanged(value: str) -> None:
    (row,) = csv_lines.read(("name\r\n" + csv_lines.line([value])).encode(), Columns(("name",)))
    assert (row.fault, row["name"]) == (None, value)


@pytest.mark.parametrize("cell", ["=1+1", "＝1+1", "@SUM(1)", "－1"])
def test_formula_is_refused_unless_escaped_with_an_apostrophe(cell: str) -> None:
    (row,) = csv_lines.read(f"name\n{cell}\n".encode(), Columns(("name",)))
    assert row.fault is not None and row.fault.code == "formula"
    (row,) = csv_lines.read(f"name\n'{cell}\n".encode(), Columns(("name",)))
    assert row["name"] == cell


@pytest.mark.parametrize(
    "content",
    [
        b"name,email,,\r\nAda,ada@example.org,,\r\n,,,\r\n\r\n",
        b"\xef\xbb\xbfname;email;;\r\nAda;ada@example.org;;\r\n;;;\r\n",
        b"name,email\nAda,ada@example.org,,,\n",
        b"name,email,,\nAda,ada@example.org\n",
        b"name\t\temail\t\nAda\t\tada@example.org\t\n",
        b"name,email\rAda,ada@example.org\r",
    ],
)
def test_empty_columns_and_lines_are_ignored(content: bytes) -> None:
    (row,) = csv_lines.read(content, Columns(("name", "email")))
    assert (row.fault, dict(row.cells)) == (None, {"name": "Ada", "email": "ada@example.org"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,email,,\nAda,ada@example.org,,x\n", "The cell in column 4 has no heading"),
        (b"name,email\nAda,ada@example.org,x\n", "3 cells, the heading has 2"),
        (b"name,,email\nAda,x,ada@example.org\n", "The cell in column 2 has no heading"),
        (b"name,email\nAda\n", "1 cells, the heading has 2"),
    ],
)
def test_cell_without_a_heading_is_reported(content: bytes, said: str) -> None:
    (row,) = csv_lines.read(content, Columns(("name", "email")))
    assert row.fault is not None and said in row.fault.detail
