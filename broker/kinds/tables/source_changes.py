"""What a table behind a slice was when the slice was registered, what it is now, and how the two differ, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# How slices are made now. One made in another way is made again by the round that looks at them.
MADE = 2


def difference(was: Mapping[str, Any], now: Mapping[str, Any] | None, binding: Mapping[str, Any]) -> str:
    """What has changed behind a slice since its owner saw it, as a sentence; "" if nothing.

    Args:
        was, now: `{table, columns: {name: [which, type, computed]}, definition, reads}`, each part as the database
            identifies it; None where there is no table of that name. `follows` says why a guest could choose its rows,
            `marked` names the functions that decide of them by their owner's word: neither is known of slices made
            by earlier versions.
    """
    named = f"{binding.get('schema')}.{binding.get('table')}"
    if now is None:
        return f"The table {named} no longer exists: it was dropped or renamed."
    return _columns(was, now, named) or _rows(was, now, named)


def _columns(was: Mapping[str, Any], now: Mapping[str, Any], named: str) -> str:
    for name, (which, type_, computed) in was.get("columns", {}).items():
        if name not in now.get("columns", {}):
            return f"The table {named} has no column {name} any more: it was dropped or renamed."
        which_now, type_now, computed_now = now["columns"][name]
        if which_now != which:
            return f"The column {name} of {named} is a different column than before."
        if type_now != type_:
            return f"The column {name} of {named} is of type {type_now} now; it was {type_}."
        if computed_now != computed:
            return f"The column {name} of {named} is computed differently than before."
    return ""


def _rows(was: Mapping[str, Any], now: Mapping[str, Any], named: str) -> str:
    if now.get("table") != was.get("table"):
        return f"{named} is a different table than before, or was created again."
    if now.get("definition") != was.get("definition"):
        return f"The definition of which rows {named} shows has changed."
    if follows := str(now.get("follows", "")):
        return follows
    if was.get("marked", now.get("marked")) != now.get("marked"):
        return f"A function that decides which rows {named} shows was changed."
    if now.get("reads") != was.get("reads"):
        return "The slice's own view is gone, or was changed."
    return ""
