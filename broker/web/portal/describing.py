"""For admins: making a dataset or a slice, each step a page one can go back to. No value is ever shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.kinds.tables.binding import OPERATORS
from broker.models import CatalogueTable, Person
from broker.registry import catalogues, connections, drafts, personal_columns
from broker.registry.connections import Connection
from broker.registry.drafts import Described
from broker.registry.naming import each_told_apart
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.drafting import commands, path, render_step, step, typed, visible
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
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
_MOST_OWNERS = 500
_STEPS = ("table", "columns", "describe", "review")


@router.get("/datasets/new")
def begin_page(viewer: MemberNow, dataset: str = "") -> HTMLResponse:
    """Where the data lies."""
    return _begin_page(Setback(viewer), {"dataset": dataset})


@router.post("/datasets/new")
def begin(viewer: MemberNow, sent: Sent) -> Response:
    """Begin a draft; a database nobody has looked into yet is read."""

    def do(viewer: Viewer) -> Response:
        kind, _, name = sent.get("connection", "").rpartition("/")
        with viewer.parts.database.transaction() as tx:
            now, settings = clock(tx), viewer.parts.settings
            if kind:
                made = drafts.begin(tx, viewer.caller, settings, name, sent.get("dataset") or None, now, kind=kind)
                return go(path(made.id, "place"))
            if name not in settings.connections(catalogues.KIND.name):
                raise Invalid("Choose where the data is.", field="/connection")
            made = drafts.begin(tx, viewer.caller, settings, name, sent.get("dataset") or None, now)
            if catalogues.connection(tx, viewer.caller, settings, name).catalogue is None:
                catalogues.ask(tx, viewer.caller, settings, name, now)
            return go(path(made.id, "table"))

    return act(viewer, sent, do, lambda back: _begin_page(back, sent))


@router.get("/datasets/new/{draft_id}/table")
def table_page(draft_id: str, viewer: MemberNow, part: str = "", after: str = "") -> Response:
    """Which table or view."""
    return _table_page(Setback(viewer), draft_id, part[:63], after[:130])


@router.post("/datasets/new/{draft_id}/table")
def choose_table(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take the table."""

    def do(tx: Transaction, viewer: Viewer) -> None:
        drafts.choose_table(tx, viewer.caller, draft_id, sent.get("table", ""))

    return step(viewer, sent, do, path(draft_id, "columns"), lambda back: _table_page(back, draft_id, "", ""))


@router.post("/datasets/new/{draft_id}/read")
def read_again(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Have the database read again."""

    def do(tx: Transaction, viewer: Viewer) -> None:
        held = drafts.draft(tx, viewer.caller, draft_id)
        catalogues.ask(tx, viewer.caller, viewer.parts.settings, held.content["connection"], clock(tx))

    return step(viewer, sent, do, path(draft_id, "table"), lambda back: _table_page(back, draft_id, "", ""))


@router.get("/datasets/new/{draft_id}/columns")
def columns_page(draft_id: str, viewer: MemberNow) -> Response:
    """Which columns and rows; those that look personal are left out until somebody takes them in."""
    return _columns_page(Setback(viewer), draft_id, {})


@router.post("/datasets/new/{draft_id}/columns")
def choose_columns(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take columns and conditions."""

    def do(tx: Transaction, viewer: Viewer) -> None:
        chosen = [name.removeprefix("use-") for name in sent if name.startswith("use-")]
        drafts.choose_columns(tx, viewer.caller, draft_id, chosen, _conditions(sent))

    return step(viewer, sent, do, path(draft_id, "describe"), lambda back: _columns_page(back, draft_id, sent))


@router.get("/datasets/new/{draft_id}/describe")
def describe_page(draft_id: str, viewer: MemberNow) -> Response:
    """What it is called, what rules go by, whose it is."""
    return _describe_page(Setback(viewer), draft_id, {})


@router.post("/datasets/new/{draft_id}/describe")
def describe(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take the description."""
    said = Described(
        title=sent.get("title", "").strip(),
        slug=sent.get("slug", "").strip(),
        description=sent.get("description", ""),
        labels=sent.get("labels", "").replace(",", " ").split(),
        owner_id=sent.get("owner", ""),
        kept_until=sent.get("kept_until", "").strip(),
        slice_name=sent.get("slice_name", "").strip(),
        slice_description=sent.get("slice_description", ""),
    )

    def do(tx: Transaction, viewer: Viewer) -> None:
        drafts.describe(tx, viewer.caller, draft_id, said, clock(tx))

    return step(viewer, sent, do, path(draft_id, "review"), lambda back: _describe_page(back, draft_id, sent))


@router.get("/datasets/new/{draft_id}/review")
def review_page(draft_id: str, viewer: MemberNow) -> Response:
    """Everything once more, and what guests will see."""
    return _review_page(Setback(viewer), draft_id)


@router.post("/datasets/new/{draft_id}/review")
def register(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Register it; the worker makes the slice real."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            slug = drafts.finish(tx, viewer.caller, draft_id, clock(tx))
        return go(f"/datasets/{slug}/slices")

    return act(viewer, sent, do, lambda back: _review_page(back, draft_id), needs=fresh)


def _begin_page(back: Setback, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        found = connections.connections(tx, viewer.caller, viewer.parts.settings)
    placed = drafts.elsewhere(viewer.parts.settings)
    choices = [(item.name, _said(item, item.name)) for item in found if item.kind == catalogues.KIND.name]
    choices += [
        (f"{item.kind}/{item.name}", _said(item, f"{item.name} ({item.kind})"))
        for item in found
        if (item.kind, item.name) in placed
    ]
    return render_step(
        "begin", back, choices=choices, chosen=sent.get("connection", ""), of=sent.get("dataset", "")[:64]
    )


def _said(item: Connection, called: str) -> str:
    return f"{called}: not responding" if item.healthy is False else called


def _table_page(back: Setback, draft_id: str, part: str, after: str) -> Response:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        content = drafts.draft(tx, viewer.caller, draft_id).content
        if done := content.get("done"):
            return go(f"/datasets/{done}/slices")
        if "kind" in content:
            return go(path(draft_id, "place"))
        name = content["connection"]
        catalogue = catalogues.connection(tx, viewer.caller, viewer.parts.settings, name).catalogue
        page = catalogues.tables(tx, viewer.caller, name, part=part, after=after)
    return render_step(
        "table",
        back,
        draft=draft_id,
        content=content,
        catalogue=catalogue,
        kind=catalogues.KIND.name,
        tables=[(f"{item.schema}.{item.name}", visible(f"{item.schema}.{item.name}"), item) for item in page.items],
        after=page.after,
        part=part,
        chosen=".".join(content.get("table", [])),
    )


def _columns_page(back: Setback, draft_id: str, sent: Mapping[str, str]) -> Response:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        content = drafts.draft(tx, viewer.caller, draft_id).content
        if "table" not in content:
            return go(path(draft_id, "table"))
        try:
            table = drafts.table_of(tx, viewer.caller, content)
        except Invalid:
            return go(path(draft_id, "table"))
    columns = _columns(table)
    if sent:
        chosen = {name.removeprefix("use-") for name in sent if name.startswith("use-")}
    else:
        chosen = set(content.get("columns", [column["name"] for column in columns if column["guess"] is None]))
    rows = _slots(sent, content.get("rows", []))
    return render_step(
        "columns",
        back,
        draft=draft_id,
        content=content,
        table=table,
        columns=columns,
        unusable=[visible(column["name"]) for column in table.columns if not column["usable"]],
        chosen=chosen,
        rows=rows,
        choices=[(column["name"], column["name"]) for column in columns],
        operators=[(operator, _OPERATORS[operator]) for operator in OPERATORS],
        how=personal_columns.HOW,
    )


def _describe_page(back: Setback, draft_id: str, sent: Mapping[str, str]) -> Response:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        content = drafts.draft(tx, viewer.caller, draft_id).content
        where = "place" if "kind" in content else "columns"
        if ("binding" if "kind" in content else "columns") not in content:
            return go(path(draft_id, drafts.step_missing(content) or "review"))
        others = (Person.vendor_id.is_(None), Person.status == "active", Person.id != viewer.caller.id)
        inside = select(Person).where(*others)
        people = tx.scalars(inside.order_by(Person.name, Person.id).limit(_MOST_OWNERS)).all()
    kept = {**content, "labels": " ".join(content.get("labels", [])), "slice_name": content.get("slice", "")}
    owners = [("", "None yet: admins decide"), *each_told_apart(people).items()]
    return render_step(
        "describe", back, draft=draft_id, content=content, filled=sent or kept, owners=owners, where=where
    )


def _review_page(back: Setback, draft_id: str) -> Response:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        content = drafts.draft(tx, viewer.caller, draft_id).content
        if done := content.get("done"):
            return go(f"/datasets/{done}/slices")
        if step := drafts.step_missing(content):
            return go(path(draft_id, step))
        owner = tx.get(Person, content["owner"]) if content.get("owner") else None
        if "kind" in content:
            return render_step(
                "review_place", back, draft=draft_id, content=content, owner=owner, commands=commands(content)
            )
        try:
            table = drafts.table_of(tx, viewer.caller, content)
        except Invalid:
            return go(path(draft_id, "table"))
    chosen = [column for column in _columns(table) if column["name"] in content["columns"]]
    return render_step(
        "review",
        back,
        draft=draft_id,
        content=content,
        table=table,
        columns=chosen,
        conditions=[condition_said(row) for row in content["rows"]],
        owner=owner,
        commands=commands(content),
    )


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
