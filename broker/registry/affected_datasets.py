"""Which datasets a change would open something of to somebody at once: those whose owner must then agree.

The whole list of changes, and what each opens for whom, is docs/who-may-open-what.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, select

from broker.base.database import Transaction
from broker.models import Dataset, Grant, Request, Slice


def datasets_opened(tx: Transaction, of: Dataset, kind: str, binding: Mapping[str, Any]) -> list[str]:
    """The ids of the datasets that a new slice of a dataset opens something of; none, where it opens nothing yet.

    The dataset itself, if somebody holds a grant on it or asks for one: they could use the slice, or be approved by
    somebody who does not know of it. Another dataset, if it shows the same place under other labels, or did before it
    was retired: fewer labels of one and more of another can both open more, as rules have it.
    """
    opened = {of.id} if _held_or_asked(tx, Grant.dataset_id == of.id, Request.dataset_id == of.id) else set()
    query = (
        select(Dataset.id, Dataset.labels, Slice.binding)
        .join(Slice, Slice.dataset_id == Dataset.id)
        .where(
            Slice.kind == kind,
            Slice.binding["connection"].astext == binding["connection"],
            # Retired ones too: else one admin could retire a dataset and offer its table anew under laxer labels.
            Dataset.id != of.id,
        )
    )
    for dataset_id, labels, bound in tx.execute(query):
        if set(labels) != set(of.labels) and _overlap(bound, binding):
            opened.add(dataset_id)
    return sorted(opened | {of.id}) if opened else []


def datasets_of_holder(tx: Transaction, *, team_id: str | None = None, service_id: str | None = None) -> list[str]:
    """The ids of the datasets a team or service holds a live grant on; of a service also those it is asked for on.

    Who is in a team is shown to whoever approves its request, and must be as they saw it; a secret leaves no trace.
    """
    granted = Grant.team_id == team_id if team_id else Grant.service_id == service_id
    held = tx.scalars(select(Grant.dataset_id).where(granted, _live_grant()))
    asked = select(Request.dataset_id).where(Request.service_id == service_id, _pending()) if service_id else None
    return sorted({*held, *(tx.scalars(asked) if asked is not None else ())})


def _held_or_asked(tx: Transaction, granted: ColumnElement[bool], asked: ColumnElement[bool]) -> bool:
    held = select(Grant.id).where(granted, _live_grant()).limit(1)
    waiting = select(Request.id).where(asked, _pending()).limit(1)
    return tx.execute(held).first() is not None or tx.execute(waiting).first() is not None


def _live_grant() -> ColumnElement[bool]:
    return Grant.revoked_at.is_(None) & (Grant.ends_at > func.clock_timestamp())


def _pending() -> ColumnElement[bool]:
    return (Request.state == "pending") & (Request.lapses_at > func.clock_timestamp())


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two bindings of one connection could show the same thing; what is unknown counts as the same."""
    if "table" in one and "table" in other:
        return (one.get("schema"), one["table"]) == (other.get("schema"), other["table"])
    if "bucket" in one and "bucket" in other:
        return one["bucket"] == other["bucket"] and _nested(str(one.get("prefix")), str(other.get("prefix")))
    if "directory" in one and "directory" in other:
        return _nested(f"{one['directory']}/", f"{other['directory']}/")
    return True


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
