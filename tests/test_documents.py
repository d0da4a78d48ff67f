"""Documents lead somewhere: every relative link in them is a file that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.kinds import discovery
from broker.kinds.discovery import kinds

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_in_documents_resolve(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_kind_is_documented_with_the_ending_it_declares() -> None:
    page = discovery.PAGE.read_text(encoding="utf-8")
    assert page == discovery.with_table(page), "run `make docs`"
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(kinds)
