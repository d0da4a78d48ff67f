"""For admins: making a dataset or a slice, each step a page one can go back to. No value is ever shown."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from broker.base import filter_text
from broker.base.errors import Invalid
from broker.kinds.discovery import kinds
from broker.kinds.tables.binding import OPERATORS
from broker.models import CatalogueTable
from broker.registry import connections, drafts, people, personal_columns
from broker.registry.connections import Connection
from broker.registry.drafts import Described
from broker.registry.naming import names_of
from broker.web.portal.forms import Context, PortalRequest, form, go, page

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


_OPERATORS = {
    "=": "is",
    "<>": "is not",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
    "in": "is one of (separated by commas)",
    "is_null": "is empty",
    "not_null": "is not empty",
}
_CONDITIONS = 3


@page("/datasets/new", template="describe/begin.html")
def begin_page(req: PortalRequest) -> Context:
    """Where the data lies."""
    found = connections.connections(req.tx, req.caller, req.parts.settings)
    placed = drafts.elsewhere(req.parts.settings)
    choices = [(item.name, _said(item, item.name)) for item in found if item.kind == connections.CATALOGUE_KIND.name]
    choices += [
        (f"{item.kind}/{item.name}", _said(item, f"{item.name} ({item.kind})"))
        for item in found
        if (item.kind, item.name) in placed
    ]
    of = req.prefilled("dataset").get("dataset", "")[:64]
    return {"choices": choices, "chosen": req.field("connection"), "of": of}


@form("/datasets/new", rerender=begin_page, needs=None)
def begin(req: PortalRequest) -> str:
    """Begin a draft; a database nobody has looked into yet is read."""
    kind, _, name = req.field("connection").rpartition("/")
    settings, of = req.parts.settings, req.field("dataset") or None
    if kind:
        made = drafts.begin(req.tx, req.caller, settings, name, of, req.now, kind=kind)
        return path(made.id, "place")
    if name not in settings.connections(connections.CATALOGUE_KIND.name):
        raise Invalid("Choose where the data is.", field="/connection")
    made = drafts.begin(req.tx, req.caller, settings, name, of, req.now)
    if connections.catalogue_of(req.tx, req.caller, settings, name) is None:
        connections.read_catalogue(req.tx, req.caller, settings, name, req.now)
    return path(made.id, "table")


@page(f"{STEP}/table", template="describe/table.html")
def table_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """Which table or view."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    if done := content.get("done"):
        return go(f"/datasets/{done}/slices")
    if "kind" in content:
        return go(path(draft_id, "place"))
    name, part, after = content["connection"], req.asked("part")[:63], req.asked("after")[:130]
    found = connections.catalogue_tables(req.tx, req.caller, name, part=part, after=after)
    return {
        "draft": draft_id,
        "content": content,
        "catalogue": connections.catalogue_of(req.tx, req.caller, req.parts.settings, name),
        "tables": [(f"{item.schema}.{item.name}", visible(f"{item.schema}.{item.name}"), item) for item in found.items],
        "after": found.next_cursor,
        "part": part,
        "chosen": ".".join(content.get("table", [])),
        "kind": connections.CATALOGUE_KIND.name,
    }


@form(f"{STEP}/table", rerender=table_page, needs=None)
def choose_table(req: PortalRequest, draft_id: str) -> str:
    """Take the table."""
    drafts.choose_table(req.tx, req.caller, draft_id, req.field("table"))
    return path(draft_id, "columns")


@form(f"{STEP}/read", rerender=table_page, needs=None)
def read_again(req: PortalRequest, draft_id: str) -> str:
    """Have the database read again."""
    held = drafts.draft(req.tx, req.caller, draft_id)
    connections.read_catalogue(req.tx, req.caller, req.parts.settings, held.content["connection"], req.now)
    return path(draft_id, "table")


@page(f"{STEP}/columns", template="describe/columns.html")
def columns_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """Which columns and rows; those that look personal are left out until somebody takes them in."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    table = _table(req, content)
    if table is None:
        return go(path(draft_id, "table"))
    columns = _columns(table)
    proposed = content.get("columns", [column["name"] for column in columns if column["guess"] is None])
    return {
        "draft": draft_id,
        "content": content,
        "table": table,
        "columns": columns,
        "unusable": [visible(column["name"]) for column in table.columns if not column["usable"]],
        "chosen": set(req.ticked("use-") if req.sent else proposed),
        "rows": _slots(req.sent, content.get("rows", [])),
        "choices": [(column["name"], column["name"]) for column in columns],
        "operators": [(operator, _OPERATORS[operator]) for operator in OPERATORS],
        "how": personal_columns.HOW,
    }


@form(f"{STEP}/columns", rerender=columns_page, needs=None)
def choose_columns(req: PortalRequest, draft_id: str) -> str:
    """Take columns and conditions."""
    drafts.choose_columns(req.tx, req.caller, draft_id, req.ticked("use-"), _conditions(req.sent))
    return path(draft_id, "describe")


@page(f"{STEP}/describe", template="describe/describe.html")
def describe_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """What it is called, what rules go by, whose it is."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    where = "place" if "kind" in content else "columns"
    if ("binding" if "kind" in content else "columns") not in content:
        return go(path(draft_id, drafts.step_missing(content) or "review"))
    kept = {**content, "labels": " ".join(content.get("labels", [])), "slice_name": content.get("slice", "")}
    others = [item for item in people.choices(req.tx).items() if item[0] != req.caller.id]
    return {
        "draft": draft_id,
        "content": content,
        "filled": req.sent or kept,
        "owners": [("", "None yet: admins decide"), *others],
        "where": where,
    }


@form(f"{STEP}/describe", rerender=describe_page, needs=None)
def describe(req: PortalRequest, draft_id: str) -> str:
    """Take the description."""
    said = Described(
        title=req.field("title").strip(),
        slug=req.field("slug").strip(),
        description=req.field("description"),
        labels=req.field("labels").replace(",", " ").split(),
        owner_id=req.field("owner"),
        kept_until=req.field("kept_until").strip(),
        slice_name=req.field("slice_name").strip(),
        slice_description=req.field("slice_description"),
    )
    drafts.describe(req.tx, req.caller, draft_id, said, req.now)
    return path(draft_id, "review")


@page(f"{STEP}/review", template="describe/review.html")
def review_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """Everything once more, and what guests will see."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    if done := content.get("done"):
        return go(f"/datasets/{done}/slices")
    if step := drafts.step_missing(content):
        return go(path(draft_id, step))
    owner = content.get("owner")
    shown = {
        "draft": draft_id,
        "content": content,
        "owner": names_of(req.tx, [owner]).get(owner) if owner else None,
        "commands": commands(content),
    }
    if "kind" in content:
        return shown
    table = _table(req, content)
    if table is None:
        return go(path(draft_id, "table"))
    chosen = [column for column in _columns(table) if column["name"] in content["columns"]]
    conditions = [condition_said(row) for row in content["rows"]]
    return {**shown, "table": table, "columns": chosen, "conditions": conditions}


@form(f"{STEP}/review", rerender=review_page)
def register(req: PortalRequest, draft_id: str) -> str:
    """Register it; the worker makes the slice real."""
    return f"/datasets/{drafts.finish(req.tx, req.caller, draft_id, req.now)}/slices"


def _said(item: Connection, called: str) -> str:
    return f"{called}: not responding" if item.healthy is False else called


def _table(req: PortalRequest, content: Mapping[str, Any]) -> CatalogueTable | None:
    """The table of a draft, as it was last read; None if none was chosen, or it is gone."""
    if "table" not in content:
        return None
    try:
        return drafts.table_of(req.tx, req.caller, content)
    except Invalid:
        return None


def condition_said(row: list[Any]) -> str:
    """A condition on rows, in words."""
    return visible(f"{row[0]} {_OPERATORS[row[1]].partition(' (')[0]} {typed(row)}".strip())


def _columns(table: CatalogueTable) -> list[dict[str, Any]]:
    return [
        {**column, "type": visible(column["type"]), "guess": personal_columns.guess(column)}
        for column in table.columns
        if column["usable"]
    ]


def _conditions(sent: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [
        (column, sent.get(f"operator-{at}", ""), sent.get(f"value-{at}", ""))
        for at in range(1, _CONDITIONS + 21)
        # A value whose column was not chosen is refused below: left out, more rows would show than were meant.
        if (column := sent.get(f"column-{at}", "")) or sent.get(f"value-{at}", "").strip()
    ]


def _slots(sent: Mapping[str, str], rows: list[Any]) -> list[tuple[str, str, str]]:
    """The conditions as fields: those there are, and a few empty ones."""
    kept = _conditions(sent) if sent else [(row[0], row[1], typed(row)) for row in rows]
    return kept + [("", "=", "")] * max(1, _CONDITIONS - len(kept))


@page(f"{STEP}/place", template="describe/place.html")
def place_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """Where exactly."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    if done := content.get("done"):
        return go(f"/datasets/{done}/slices")
    if "kind" not in content:
        return go(path(draft_id, "table"))
    kind = kinds[content["kind"]]
    chosen = content.get("actions", ["read"] if "read" in kind.actions else [])
    return {
        "draft": draft_id,
        "content": content,
        "fields": kind.binding_fields or (),
        "filled": req.sent or content.get("binding", {}),
        "actions": sorted(kind.actions),
        "chosen": req.ticked("may-") if req.sent else chosen,
    }


@form(f"{STEP}/place", rerender=place_page, needs=None)
def choose_place(req: PortalRequest, draft_id: str) -> str:
    """Take it."""
    drafts.choose_place(req.tx, req.caller, draft_id, req.sent, req.ticked("may-"))
    return path(draft_id, "describe")
