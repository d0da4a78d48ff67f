"""A folder under broker/kinds is a kind with all it needs, or keeps the broker from starting."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import kinds as package
from broker.kinds import discovery, folders

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a kind `toy` beside the real ones."""
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    made = tmp_path / "toy"
    made.mkdir()
    (made / "__init__.py").touch()
    yield made
    for name in [name for name in sys.modules if name.startswith("broker.kinds.toy")]:
        del sys.modules[name]


def test_kinds_are_offered_in_the_order_of_their_positions() -> None:
    positions = [kind.position for kind in discovery.kinds.values()]
    assert positions == sorted(set(positions)), "no two at one place"
    assert next(iter(discovery.kinds)) == "postgres"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "broker.kinds.toy.kind needs a KIND whose name is 'toy'"),
        ("class KIND:\n    name = 'other'\n", "broker.kinds.toy.kind needs a KIND whose name is 'toy'"),
        ("import broker.nothing_of_this_name\n", "nothing_of_this_name"),
    ],
)
def test_broken_folder_of_a_kind_is_an_import_error(folder: Path, text: str, error: str) -> None:
    (folder / "kind.py").write_text(text)
    with pytest.raises(ImportError, match=error):
        discovery.discovered()


def test_part_of_a_folder_without_a_kind_is_an_import_error(folder: Path) -> None:
    (folder / "client.py").touch()
    with pytest.raises(ImportError, match=r"toy has a client\.py and no kind\.py"):
        folders.modules("client")


def test_folder_without_a_kind_holds_what_kinds_share(folder: Path) -> None:
    (folder / "shared.py").touch()
    assert "toy" not in discovery.discovered()


RECIPE = re.compile(r"^\| `([^`]+)` \| (required|optional) \| ", re.MULTILINE)


def recipe() -> list[tuple[str, bool]]:
    """The files that CONTRIBUTING.md says a kind needs, each with whether it must be there."""
    _, _, after = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add a kind\n")
    return [(path, needed == "required") for path, needed in RECIPE.findall(after.partition("\n## ")[0])]


def found(path: str, kind: str) -> bool:
    """Whether a file of the recipe is there for a kind; a file of all kinds must say its name."""
    if "<kind>" in path:
        return (ROOT / path.replace("<kind>", kind)).is_file()
    named = re.compile(rf"\b{kind}\b", re.IGNORECASE)
    return any(named.search(file.read_text()) for file in ROOT.glob(path))


def test_every_kind_has_the_files_that_the_recipe_requires() -> None:
    required = [path for path, needed in recipe() if needed]
    assert len(required) >= 4
    assert [(path, kind) for path in required for kind in discovery.kinds if not found(path, kind)] == []


def test_every_optional_file_of_the_recipe_is_one_that_some_kind_has() -> None:
    unknown = [path for path, _ in recipe() if not any(found(path, kind) for kind in discovery.kinds)]
    assert unknown == []


def test_the_recipe_names_every_module_that_is_looked_for_in_a_folder() -> None:
    asked = set()
    for file in (path for top in ("broker", "guestkey") for path in (ROOT / top).rglob("*.py")):
        asked |= set(re.findall(r"folders\.modules\(\"(\w+)\"\)", file.read_text())) - {"KIND"}
    named = {Path(path).stem for path, _ in recipe() if "<kind>" in path}
    assert asked | {folders.KIND, "__init__"} == named


def test_a_kind_touches_at_most_six_files_beside_tests_and_documents() -> None:
    assert len([path for path, _ in recipe() if not path.startswith(("tests/", "docs/"))]) <= 6
