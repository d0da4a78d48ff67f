"""Text that people read: every script as it is written, and nothing that hides."""

from __future__ import annotations

import pytest

from broker.base import words
from broker.base.errors import Invalid

pytestmark = pytest.mark.fast

ZWNJ, ZWJ = "\u200c", "\u200d"


@pytest.mark.parametrize(
    "text",
    [
        f"\u0645\u06cc{ZWNJ}\u062e\u0648\u0627\u0647\u0645",  # Persian: I want
        f"\u0915\u094d{ZWJ}\u0937",  # Devanagari: a half form
        f"\u0d28\u0d4d{ZWJ}",  # Malayalam: a final consonant
        f"\U0001f469{ZWJ}\u2695\ufe0f",  # a woman who is a doctor
        f"\U0001f469\U0001f3fd{ZWJ}\U0001f4bb",  # with a shade of skin
        f"\u2764\ufe0f{ZWJ}\U0001f525",  # a heart on fire
    ],
)
def test_zero_width_joiners_are_allowed_in_scripts_that_need_them(text: str) -> None:
    assert words.name(text, "/name") == text
    assert words.prose(f"For {text} only.", "/purpose") == f"For {text} only."


@pytest.mark.parametrize(
    "text",
    [
        *(f"ad{mark}min" for mark in (ZWNJ, ZWJ, "\u200b", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066")),
        *(f"{ZWNJ}\u0645", f"\u0645{ZWNJ}", f"\u0645{ZWNJ}{ZWNJ}\u062e", f"\u0645{ZWNJ}a", f"\U0001f469{ZWJ}"),
        f"\U0001f469{ZWNJ}\U0001f469",
    ],
)
def test_invisible_characters_are_refused(text: str) -> None:
    for check in (words.name, words.prose):
        with pytest.raises(Invalid, match="invisible"):
            check(text, "/name")


def test_identifiers_cannot_contain_joiners() -> None:
    for check in (words.slug, words.word):
        with pytest.raises(Invalid):
            check(f"a{ZWJ}b", "/slug")
