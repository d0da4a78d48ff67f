"""What the pages of a draft share: the addresses of its steps, and the commands that do the same."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

from broker.base import filter_text

STEP = "/datasets/new/{draft_id}"


def commands(content: Mapping[str, Any]) -> str:
    """What registers the same from a terminal."""
    lines = []
    if "dataset" not in content:
        optional = (("description", content["description"]), ("owner", content["owner"]))
        said = [("title", content["title"]), *(("label", label) for label in content["labels"]), *optional]
        if content["kept_until"]:
            said.append(("kept-until", f"{content['kept_until']}T23:59:59Z"))
        lines.append(_command("dataset new", [content["slug"]], said))
    said = [("connection", content["connection"]), *_place(content), ("description", content["slice_description"])]
    lines.append(_command("slice add", [content.get("dataset") or content["slug"], content["slice"]], said))
    return "\n".join(lines)


def _place(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "kind" in content:
        bound = [("set", f"{key}={value}") for key, value in content["binding"].items() if key != "connection"]
        return [("kind", content["kind"]), *bound, *(("action", action) for action in content["actions"])]
    said = [("table", ".".join(content["table"])), *(("column", column) for column in content["columns"])]
    return said + [("where", filter_text.write_condition(row)) for row in content["rows"]]


def _command(words: str, names: list[str], options: list[tuple[str, str]]) -> str:
    given = [f"--{name} {shlex.quote(visible(value))}" for name, value in options if value]
    return " ".join(["guestkey", words, *map(shlex.quote, names), *given])


def visible(text: str) -> str:
    """A name from somebody's database with what cannot be seen, or turns the line about, written out."""
    return "".join(
        character if not unicodedata.category(character).startswith(("C", "Z")) or character == " "
        else f"\\u{ord(character):04x}"
        for character in text
    )  # fmt: skip


def typed(row: list[Any]) -> str:
    """What a condition compares with, as somebody would type it."""
    if len(row) < 3 or row[2] is None:
        return ""
    return filter_text.write_values(row[2]) if isinstance(row[2], list) else filter_text.write_value(row[2])


def path(draft_id: str, step: str) -> str:
    """The address of a step."""
    return f"{STEP.format(draft_id=draft_id)}/{step}"
