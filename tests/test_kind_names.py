"""What is outside a kind's folder knows no kind by name: a new one needs no line there, and none is forgotten."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from broker.kinds.discovery import kinds

BROKER = Path(__file__).resolve().parents[1] / "broker"
# `token` is a word of its own: whatever an authorization server makes.
NAMES = "|".join(sorted(kinds.keys() - {"token"}))
WORD = re.compile(rf"\b(?:{NAMES})\b|\b(?:{NAMES})_|_(?:{NAMES})\b")
IMPORTED = re.compile(rf"broker\.kinds\.(?:{'|'.join(sorted(kinds))})\b")
# Beginnings of paths below broker/.
NOT_ASKED = (
    # A kind's own, and what was recorded once.
    "kinds/",
    "migrations/",
    # Has an example with slices of several kinds.
    "embedded/",
    # An engine of OpenBao's is called so.
    "keystore/engines.py",
    # A module of cryptography's is called so.
    "operator/serve.py",
)


def files() -> list[Path]:
    found = [*BROKER.rglob("*.py"), *BROKER.rglob("*.html")]
    return sorted(path for path in found if not str(path.relative_to(BROKER)).startswith(NOT_ASKED))


def named_in(path: Path) -> list[str]:
    """Every text, name and import in a file that says a kind's name."""
    text = path.read_text()
    if path.suffix == ".html":
        return WORD.findall(text)
    found = IMPORTED.findall(text)
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant(value=str(said)) | ast.Name(id=said) | ast.Attribute(attr=said) | ast.arg(arg=said):
                found += WORD.findall(said)
            case ast.FunctionDef(name=said) | ast.ClassDef(name=said):
                found += WORD.findall(said)
            case _:
                pass
    return found


def test_the_search_finds_names_wherever_they_may_stand(tmp_path: Path) -> None:
    tried = tmp_path / "tried.py"
    for text in (
        'KIND = "postgres"',
        "ssh_hosts = 1",
        "settings.mariadb_connections",
        "from broker.kinds.token.kind import TokenKind",
        "def of_s3(): ...",
        '"""For `x509`."""',
    ):
        tried.write_text(text)
        assert named_in(tried), text
    for text in ('"PostgreSQL"', "token = 1", "from broker.kinds.names import short"):
        tried.write_text(text)
        assert not named_in(tried), text


def test_no_file_outside_its_folder_names_a_kind() -> None:
    assert {str(path.relative_to(BROKER)): found for path in files() if (found := named_in(path))} == {}
