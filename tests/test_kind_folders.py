"""A folder under broker/kinds is a kind with all it needs, or keeps the broker from starting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import kinds as package
from broker.kinds import discovery, folders


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
    assert list(discovery.kinds) == ["postgres", "mariadb", "s3", "ssh", "x509", "token"]
    assert len({kind.position for kind in discovery.kinds.values()}) == len(discovery.kinds)


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
