"""The settings reference names every setting with its default, and nothing that is none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from broker.kinds.settings import AllSettings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(r"^\| `GUESTKEY_([A-Z0-9_]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
NOT_SETTINGS = {"SETTINGS_FILE"}


def test_configuration_page_lists_every_setting() -> None:
    documented = {name for name, _, _ in ROW.findall(PAGE.read_text())}
    assert documented - NOT_SETTINGS == {name.upper() for name in AllSettings.model_fields}


def test_configuration_page_shows_the_defaults() -> None:
    told = {name.lower(): default for name, default, _ in ROW.findall(PAGE.read_text())}
    for name, field in AllSettings.model_fields.items():
        assert told[name] == _expected(field), name


def _expected(field: Any) -> str:
    if field.is_required():
        return "required"
    value = to_jsonable_python(field.get_default(call_default_factory=True))
    if value is None:
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
