"""Text at the door: names, labels and prose that may be kept and shown. Everything else is refused, never repaired.

What reaches a rule, a role name, a path or SQL is lower-case ASCII of a fixed form. What people read may be any
script, but nothing invisible: control characters, text-direction overrides and look-alike spacing are refused. Joiners
stand where writing needs them: between letters of scripts that join theirs, and between the parts of an emoji.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from broker.base.errors import Invalid

NAME_LENGTH = 120
TITLE_LENGTH = 200
PROSE_LENGTH = 2000
# What the rule grammar accepts as a name, and no more.
SLUG = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
WORD = r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?"
LABEL = r"[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?:[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?"
_MOST_LABELS = 20
# `/datasets/new` is a page of its own.
_TAKEN = "new"
# Control, format (bidirectional overrides, zero-width), surrogate, private, unassigned; separators but the space.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_NON_JOINER, _JOINER = "\u200c", "\u200d"
# Scripts whose letters change with a joiner between them (Unicode Standard, section 23.2), as their letters are named.
_JOINING = frozenset(
    [
        *("ARABIC", "BENGALI", "DEVANAGARI", "GUJARATI", "GURMUKHI", "KANNADA", "KHMER", "MALAYALAM", "MONGOLIAN"),
        *("MYANMAR", "NKO", "ORIYA", "SINHALA", "SYRIAC", "TAMIL", "TELUGU", "TIBETAN"),
    ]
)
# What silences a consonant's vowel: a joiner may follow it, whatever comes next.
_VIRAMA = 9


def name(text: str, field: str, *, longest: int = NAME_LENGTH) -> str:
    """A name people read, on one line, spelled one way only (NFC, no double or outer spaces)."""
    _length(text, field, longest)
    _visible(text, field, allowed="")
    if text != " ".join(text.split(" ")).strip() or "  " in text:
        raise Invalid("Use single spaces, only between words.", field=field)
    return text


def prose(text: str, field: str, *, needed: bool = True, longest: int = PROSE_LENGTH) -> str:
    """Text people read: a purpose, a reason, a description. Lines may break; `needed` says it may not be empty."""
    stripped = text.strip()
    if not needed and not stripped:
        return ""
    _length(stripped, field, longest)
    _visible(stripped, field, allowed="\n")
    return stripped


def slug(text: str, field: str) -> str:
    """A dataset's short name, as it stands in addresses and rules."""
    if text == _TAKEN:
        raise Invalid(f"“{_TAKEN}” is reserved.", field=field, advice="Choose another name.")
    return _formed(SLUG, text, field, "a lower-case letter, then letters, digits and inner hyphens, up to 63")


def word(text: str, field: str) -> str:
    """The name of a role or slice, as it stands in rules."""
    return _formed(WORD, text, field, "a lower-case letter, then letters, digits and inner hyphens, up to 32")


def labels(texts: Iterable[str], field: str) -> list[str]:
    """A dataset's labels: `classification:internal`, sorted, each once."""
    given = list(texts)
    if len(given) > _MOST_LABELS:
        raise Invalid(f"A dataset has at most {_MOST_LABELS} labels.", field=field)
    form = "`name:value` in lower case"
    return sorted({_formed(LABEL, text, f"{field}/{at}", form) for at, text in enumerate(given)})


def _formed(pattern: str, text: str, field: str, form: str) -> str:
    if re.fullmatch(pattern, text) is None:
        raise Invalid(f"This must be {form}.", field=field)
    return text


def _length(text: str, field: str, longest: int) -> None:
    if not text.strip():
        raise Invalid("This cannot be empty.", field=field)
    if len(text) > longest:
        raise Invalid(f"This can have {longest} characters at most.", field=field)


def _visible(text: str, field: str, *, allowed: str) -> None:
    for at, character in enumerate(text):
        kind = unicodedata.category(character)
        if character in allowed or character == " " or _joins(text, at):
            continue
        if kind in _INVISIBLE or kind == "Zs":
            raise Invalid(
                f"This contains an invisible or control character (U+{ord(character):04X}).",
                field=field,
                advice="Type it again without formatting.",
            )
    if unicodedata.normalize("NFC", text) != text:
        raise Invalid("This must be in Unicode normal form C.", field=field)


def _joins(text: str, at: int) -> bool:
    """Whether a joiner or non-joiner stands here, and changes how what is beside it is written."""
    if text[at] not in (_NON_JOINER, _JOINER) or at == 0:
        return False
    before, after = text[at - 1], text[at + 1 : at + 2]
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if _joining(before) and after and _joining(after):
        return True
    # A symbol, a shade of skin or a variation selector, and the next symbol.
    emoji = unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
    return text[at] == _JOINER and emoji and bool(after) and unicodedata.category(after) == "So"


def _joining(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM" and unicodedata.name(character, "").partition(" ")[0] in _JOINING
