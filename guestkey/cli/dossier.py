"""What an approver needs to see beside a request, in words, as the portal has it. Pure; nothing decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guestkey.cli.output import Column, mappings
from guestkey.cli.words import duration, safe

Facts = Mapping[str, Any]


def told(facts: Facts) -> tuple[Sequence[Column], dict[str, str]]:
    """Columns and their values, for the facts beside a request."""
    lines = [
        ("holder", _holder(facts.get("holder"))),
        *((f"would {_doing(item)} {safe(item.get('name'))}", _slice(item)) for item in mappings(facts.get("slices"))),
        *(("not met now", _unmet(reason)) for reason in mappings(facts.get("unmet_now"))),
        *(("would give no access", _sentence(reason)) for reason in mappings(facts.get("lasting"))),
        *(("how access ends", _ending(kind, ending)) for kind, ending in (facts.get("endings") or {}).items()),
    ]
    columns = [Column(heading, f"told.{number}") for number, (heading, _) in enumerate(lines)]
    return columns, {str(number): said for number, (_, said) in enumerate(lines)}


def _holder(holder: Any) -> str:
    if not isinstance(holder, Mapping) or holder.get("kind") == "person":
        return ""
    members = holder.get("members")
    counted = f", {members} {'person' if members == 1 else 'people'}" if holder.get("kind") == "team" else ""
    return f"the {safe(holder.get('kind'))} {safe(holder.get('name'))}{counted}"


def _doing(item: Facts) -> str:
    may = item.get("role_may")
    return " and ".join(safe(word) for word in may) or "see" if isinstance(may, list) else "read"


def _slice(item: Facts) -> str:
    said = safe(item.get("description")) or "no description"
    binding = item.get("binding")
    if not isinstance(binding, Mapping) or not binding.get("columns"):
        return said
    rows = [" ".join(safe(part) for part in row) for row in binding.get("rows") or [] if isinstance(row, list)]
    which = f"only rows where {' and '.join(rows)}" if rows else "every row"
    return f"{said}; columns {safe(binding['columns'])}; {which}"


def _unmet(reason: Facts) -> str:
    if str(reason.get("code")).startswith("factor_"):
        return "Checked for each credential: a recent second factor."
    return f"They would see: “{safe(reason.get('sentence'))}”"


def _sentence(reason: Facts) -> str:
    return f"{safe(reason.get('sentence'))} {safe(reason.get('advice'))}".rstrip()


def _ending(kind: str, ending: Any) -> str:
    found = ending if isinstance(ending, Mapping) else {}
    worst = found.get("worst_case")
    limit = "until it expires" if worst is None else f"{_seconds(worst)} after its end"
    new, opened = _seconds(found.get("new_sessions")), _seconds(found.get("open_sessions"))
    return f"{safe(kind)}: new sessions refused within {new}, open sessions ended within {opened}, at worst {limit}"


def _seconds(value: Any) -> str:
    return duration(value) if isinstance(value, int) else safe(value)
