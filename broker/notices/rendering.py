"""The words of notices: one template a kind, whose first line is the title. Text of people is made harmless here.

What goes out travels through other people's servers: it says what happened and where to look, never why somebody asked
or what an approver wrote, and nothing of another vendor.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

LONGEST_NAME = 80
LONGEST_TITLE = 160
_FOLDER = Path(__file__).parent / "templates"
_BESIDE_LETTERS = frozenset(" -'’,()&+.")
# Plain text; what becomes HTML is escaped where it does.
_words = Environment(  # noqa: S701
    loader=FileSystemLoader(_FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class RenderedNotice:
    """A notice in words: one line of title, some lines of text."""

    title: str
    body: str


def render_notice(kind: str, facts: Mapping[str, object], *, you: bool) -> RenderedNotice:
    """The words for one kind. `you`: they go to whoever it happened to, not to somebody beside."""
    text = _words.get_template(f"{kind}.txt").render(facts, you=you)
    title, _, body = text.strip().partition("\n")
    return RenderedNotice(title.strip()[:LONGEST_TITLE], body.strip())


def render_digest(items: Sequence[tuple[str, str]], count: int) -> RenderedNotice:
    """The words of a digest of titles and links, oldest first; `count` of them in all."""
    body = _words.get_template("digest.txt").render(items=items, more=count - len(items))
    return RenderedNotice(f"Your digest: {count} notice{'' if count == 1 else 's'}", body.strip())


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """A name as it may stand in a mail: one line, nothing invisible, nothing a mail program would make a link of."""
    kept = "".join(_is_allowed(character) for character in unicodedata.normalize("NFC", text))
    # "evil.example" becomes a link by itself; "evil. example" does not.
    kept = kept.replace(".", ". ")
    return " ".join(kept.split())[:longest].strip() or "somebody"


def format_time(moment: datetime) -> str:
    """A time as people read it."""
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment.strftime('%b %Y, %H:%M UTC')}"


def _is_allowed(character: str) -> str:
    harmless = character.isalnum() or character in _BESIDE_LETTERS or unicodedata.category(character).startswith("M")
    return character if harmless else " "
