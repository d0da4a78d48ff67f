"""Datasets and slices somebody is describing, step by step. A draft is its maker's own, and nothing rests on it.

Steps may be taken in any order and again: each checks what it was given and replaces what it said before. Only `finish`
makes anything, by way of the registry and its checks, and does so once. Drafts leave no event; what they become does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

from sqlalchemy import select

from broker.base import filter_text, words
from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid
from broker.base.ids import is_id, new_id
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.identity.permissions import missing, require_admin
from broker.kinds.discovery import kinds
from broker.models import CatalogueTable, Dataset, DatasetDraft
from broker.registry import connections
from broker.registry.datasets import NewDataset, add_dataset, dataset
from broker.registry.slices import NewSlice, add_slice

LIFETIME = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Described:
    """What people and rules are told of the dataset and its slice, as typed."""

    title: str
    slug: str
    description: str
    labels: Sequence[str]
    owner_id: str
    kept_until: str
    slice_name: str
    slice_description: str


def begin(
    tx: Transaction,
    caller: Caller,
    settings: Settings,
    connection: str,
    of: str | None,
    now: datetime,
    *,
    kind: str = connections.CATALOGUE_KIND.name,
) -> DatasetDraft:
    """Start describing a dataset, or one more slice of the dataset `of`. For admins.

    Raises:
        Invalid: that kind has no such connection, or no form asks for its slices.
    """
    content: dict[str, Any] = {"connection": connection}
    if kind == connections.CATALOGUE_KIND.name:
        connections.catalogue_of(tx, caller, settings, connection)
    else:
        require_admin(caller)
        if (kind, connection) not in elsewhere(settings):
            raise Invalid("Choose where the data is.", field="/connection")
        content["kind"] = kind
    if of:
        content["dataset"] = dataset(tx, caller, of).slug
    made = DatasetDraft(id=new_id("dd"), made_by=caller.id, content=content, expires_at=now + LIFETIME)
    tx.add(made)
    return made


def elsewhere(settings: Settings) -> list[tuple[str, str]]:
    """Kind and connection of everything that is no database a catalogue is kept of, and that slices can live at."""
    asked = [name for name, kind in kinds.items() if kind.binding_fields is not None]
    return [(name, connection) for name in asked for connection in sorted(settings.connections(name))]


def draft(tx: Transaction, caller: Caller, draft_id: str, *, locked: bool = False) -> DatasetDraft:
    """One's own draft.

    Raises:
        NotFound: there is none, it has expired, or it is somebody else's.
    """
    require_admin(caller)
    found = None
    if is_id(draft_id):
        query = select(DatasetDraft).where(DatasetDraft.id == draft_id, DatasetDraft.made_by == caller.id)
        found = tx.scalars(query.with_for_update() if locked else query).one_or_none()
    if found is None:
        raise missing("draft")
    return found


def table_of(tx: Transaction, caller: Caller, content: Mapping[str, Any]) -> CatalogueTable:
    """The table a draft is about, as last read.

    Raises:
        Invalid: none was chosen, or it is gone.
    """
    place = content.get("table")
    if not place:
        raise Invalid("Choose a table first.", field="/table")
    found = tx.get(CatalogueTable, (content["connection"], place[0], place[1]))
    if found is None or not found.usable:
        raise Invalid(
            "That table no longer exists, or cannot be used for a slice.",
            field="/table",
            advice="Read the tables again, and choose another one.",
        )
    return found


def choose_table(tx: Transaction, caller: Caller, draft_id: str, named: str) -> None:
    """The table, as `schema.table`. Another table than before forgets its columns and conditions."""
    held = draft(tx, caller, draft_id, locked=True)
    schema, _, name = named.partition(".")
    if "\x00" in named or not name:
        raise Invalid("Choose a table.", field="/table")
    content = {**held.content, "table": [schema, name]}
    table_of(tx, caller, content)
    if held.content.get("table") != content["table"]:
        content.pop("columns", None)
        content.pop("rows", None)
    held.content = content


def choose_place(
    tx: Transaction, caller: Caller, draft_id: str, said: Mapping[str, str], actions: Sequence[str]
) -> None:
    """Where exactly, for a kind without a catalogue, and what may be done there.

    Raises:
        Invalid: the kind does not let it pass.
    """
    held = draft(tx, caller, draft_id, locked=True)
    kind = kinds.get(held.content.get("kind", ""))
    if kind is None:
        raise Conflict("This draft is for a database.", advice="Go back to the step “table”.")
    if not actions or not set(actions) <= kind.actions:
        raise Invalid("Choose what guests may do.", field="/actions")
    asked = {field.name: said.get(field.name, "").strip() for field in kind.binding_fields or ()}
    try:
        bound = kind.check_binding({"connection": held.content["connection"], **asked})
    except Invalid as error:
        raise Invalid(error.detail, field=error.field.removeprefix("/binding"), advice=error.advice) from error
    held.content = {**held.content, "binding": dict(bound), "actions": sorted(set(actions))}


def choose_columns(
    tx: Transaction, caller: Caller, draft_id: str, columns: Sequence[str], conditions: Sequence[tuple[str, str, str]]
) -> None:
    """The columns, and conditions on rows as (column, operator, text). The text is read as the column's type.

    Raises:
        Invalid: no column, one that is not there, or a condition that cannot be.
    """
    held = draft(tx, caller, draft_id, locked=True)
    table = table_of(tx, caller, held.content)
    usable = {column["name"] for column in table.columns if column["usable"]}
    if not all(column for column, _, _ in conditions):
        raise Invalid(
            "A condition has a value but no column.", field="/rows", advice="Choose a column, or remove the value."
        )
    unknown = sorted({*columns, *(column for column, _, _ in conditions)} - usable)
    if unknown:
        raise Invalid("Some of these columns no longer exist.", field="/columns", advice="Choose again.")
    if not columns:
        raise Invalid("Choose at least one column.", field="/columns")
    rows = [_condition(*condition) for condition in conditions]
    try:
        binding = connections.CATALOGUE_KIND.check_binding(_binding(held.content, list(columns), rows))
        bound = connections.CATALOGUE_KIND.with_column_types(binding, table.columns)
    except Invalid as error:
        raise Invalid(error.detail, field=error.field.removeprefix("/binding"), advice=error.advice) from error
    held.content = {**held.content, "columns": bound["columns"], "rows": bound["rows"]}


def describe(tx: Transaction, caller: Caller, draft_id: str, said: Described, now: datetime) -> None:
    """What the dataset and the slice are called and whose it is; of a slice for an existing dataset, its name only."""
    held = draft(tx, caller, draft_id, locked=True)
    kept: dict[str, Any] = {
        "slice": words.word(said.slice_name, "/slice_name"),
        "slice_description": words.prose(said.slice_description, "/slice_description", needed=False),
    }
    if "dataset" not in held.content:
        kept |= {
            "title": words.name(said.title, "/title", longest=words.TITLE_LENGTH),
            "slug": words.slug(said.slug, "/slug"),
            "description": words.prose(said.description, "/description", needed=False),
            "labels": _labels(said.labels),
            "owner": said.owner_id,
            "kept_until": said.kept_until,
        }
        _kept_until(said.kept_until, now)
        if said.owner_id == caller.id:
            raise Invalid("You cannot make yourself an owner.", field="/owner", advice="Choose another person.")
        if tx.scalars(select(Dataset.id).where(Dataset.slug == kept["slug"])).first() is not None:
            raise Invalid("A dataset with that name already exists.", field="/slug", advice="Choose another.")
    held.content = {**held.content, **kept}


def step_missing(content: Mapping[str, Any]) -> str | None:
    """The first step that was not taken yet, by its name in the address; None if all were."""
    where = [("place", "binding")] if "kind" in content else [("table", "table"), ("columns", "columns")]
    return next((step for step, key in [*where, ("describe", "slice")] if key not in content), None)


def finish(tx: Transaction, caller: Caller, draft_id: str, now: datetime) -> str:
    """Register what was described; returns the dataset's slug. A second time makes nothing and returns the same.

    Raises:
        Invalid, Conflict: it no longer holds, or the name was taken meanwhile.
    """
    held = draft(tx, caller, draft_id, locked=True)
    content = held.content
    if done := content.get("done"):
        return str(done)
    if step := step_missing(content):
        raise Conflict("Something is still missing.", advice=f"Go back to the step “{step}”.")
    if "kind" not in content:
        table_of(tx, caller, content)
    slug = content.get("dataset")
    if slug is None:
        new = NewDataset(
            slug=content["slug"],
            title=content["title"],
            description=content["description"],
            nature="data",
            labels=tuple(content["labels"]),
            owner_id=content["owner"] or None,
            retention_until=_kept_until(content["kept_until"], now),
        )
        slug = add_dataset(tx, caller, new, now).slug
    add_slice(tx, caller, slug, _slice(content), now)
    held.content = {"done": slug, "connection": content["connection"]}
    return str(slug)


def _slice(content: Mapping[str, Any]) -> NewSlice:
    name, description = content["slice"], content["slice_description"]
    if "kind" in content:
        return NewSlice(name, description, content["kind"], content["binding"], tuple(content["actions"]))
    binding = _binding(content, content["columns"], content["rows"])
    return NewSlice(name, description, connections.CATALOGUE_KIND.name, binding, ("read",))


def _binding(content: Mapping[str, Any], columns: list[str], rows: list[Any]) -> dict[str, Any]:
    schema, table = content["table"]
    return {"connection": content["connection"], "schema": schema, "table": table, "columns": columns, "rows": rows}


def _condition(column: str, operator: str, text: str) -> list[Any]:
    """One condition of a binding; what its values mean is the column's to say."""
    if operator in ("is_null", "not_null"):
        return [column, operator]
    try:
        return [column, operator, (filter_text.read_values if operator == "in" else filter_text.read_value)(text)]
    except filter_text.FilterSyntaxError as error:
        raise Invalid(str(error), field="/rows") from None


def _labels(texts: Sequence[str]) -> list[str]:
    try:
        return words.labels(texts, "/labels")
    except Invalid as error:
        raise Invalid("A label is `name:value` in lower case.", field="/labels", advice=error.advice) from error


def _kept_until(text: str, now: datetime) -> datetime | None:
    """The end of that day, UTC; None for ever."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Invalid("Enter a day like 2030-12-31.", field="/kept_until") from None
    until = datetime.combine(day, time_of_day(23, 59, 59), UTC)
    if until <= now:
        raise Invalid("That day is in the past.", field="/kept_until", advice="Choose a later one, or none.")
    return until
