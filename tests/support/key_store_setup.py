"""What a new OpenBao is asked for (`initialize.hcl`), and key stores of an earlier release that asked for less."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from broker.embedded import openbao

_REQUEST = re.compile(r'(?:  #[^\n]*\n)*  request "(?P<name>[^"]+)" \{\n.*?\n  \}\n', re.DOTALL)
_PATH = re.compile(r'path +=? *= "(.+)"')
_FIELD = re.compile(r"^      (\w+) *= (.+)$", re.MULTILINE)


def requests_for(prefix: str) -> dict[str, dict[str, Any]]:
    """Path and fields of the requests whose names begin so; fields are plain values."""
    found = {}
    for request in _REQUEST.finditer(openbao.INITIALIZE.read_text()):
        if request["name"].startswith(prefix):
            (path,) = _PATH.findall(request[0])
            found[path] = {key: json.loads(value) for key, value in _FIELD.findall(request[0]) if value[0] != "{"}
    return found


def setup_without(prefix: str, folder: Path) -> Path:
    """The file of a release that did not ask for these yet."""
    file = folder / "initialize.hcl"
    text = openbao.INITIALIZE.read_text()
    file.write_text(_REQUEST.sub(lambda request: "" if request["name"].startswith(prefix) else request[0], text))
    assert requests_for(prefix) and file.read_text() != text
    return file
