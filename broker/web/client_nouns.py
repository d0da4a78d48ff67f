"""The nouns as the client is told of them: `guestkey/cli/nouns.json`, made from the OpenAPI document (`make docs`).

Shipped with the client, so that `list`, `show`, `export` and plain acts need neither a file there nor a question to the
server.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI

from broker.web.api import api_router
from broker.web.openapi import tags

_PAGING = ("cursor", "limit", "format")
Operation = Mapping[str, Any]


def nouns() -> dict[str, list[dict[str, Any]]]:
    """Each noun that the API lists, in the order of its pages, and each act that is a command."""
    app = FastAPI()
    app.include_router(api_router)
    described = app.openapi()
    paths: Mapping[str, Mapping[str, Operation]] = described["paths"]
    listed = [
        _noun(path, operations["get"], paths.get(f"{path}/export", {}).get("get"))
        for path, operations in paths.items()
        if "x-noun" in operations.get("get", {})
    ]
    acts = [
        _act(path, method, operation, described["components"]["schemas"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "x-command" in operation
    ]
    return {"nouns": listed, "acts": acts}


def _act(path: str, method: str, operation: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    words, said = operation["x-command"]
    group, _, name = words.partition(" ")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    fields = schemas[body["$ref"].rpartition("/")[2]] if body else {"properties": {}}
    return {
        "group": group,
        "name": name,
        "about": operation["description"],
        "method": method.upper(),
        "path": path,
        "arguments": [given["name"] for given in operation.get("parameters", ()) if given["in"] == "path"],
        "options": [
            {"name": name, "about": field.get("description", ""), "required": name in fields.get("required", ())}
            for name, field in fields["properties"].items()
        ],
        "said": said,
    }


def _noun(path: str, listing: Operation, export: Operation | None) -> dict[str, Any]:
    display = listing["x-noun"]
    group, _, list_as = display["command"].partition(" ")
    return {
        "name": display["name"],
        "group": group,
        "list_as": list_as,
        "about": tags()[listing["tags"][0]],
        "path": path,
        "key": display["key"],
        "columns": display["columns"],
        "details": display.get("details", ""),
        "none": display["none"],
        "list_about": _sentence("List", listing),
        "filters": _filters(listing),
        "export_about": _sentence("Export", export) if export else "",
        "export_filters": _filters(export) if export else None,
        "formats": _formats(export) if export else [],
    }


def _sentence(verb: str, operation: Operation) -> str:
    about = str(operation["description"])
    return f"{verb} {about[0].lower()}{about[1:]}"


def _filters(operation: Operation) -> list[dict[str, Any]]:
    return [_filter(given) for given in operation.get("parameters", ()) if given["name"] not in _PAGING]


def _filter(given: Mapping[str, Any]) -> dict[str, Any]:
    types: Sequence[Mapping[str, Any]] = given["schema"].get("anyOf", [given["schema"]])
    words = [word for type_ in types for word in type_.get("enum", ())]
    formats = [type_["format"] for type_ in types if "format" in type_]
    filter_ = {
        "name": given["name"],
        "about": " ".join(filter(None, [f"{', '.join(words)}." if words else "", given.get("description")])),
        "type": formats[0] if formats else "string",
        "words": words,
    }
    return filter_ | ({"default": given["schema"]["default"]} if "default" in given["schema"] else {})


def _formats(operation: Operation) -> list[str]:
    schema = next(given["schema"] for given in operation["parameters"] if given["name"] == "format")
    first = schema["default"]
    return [first, *(form for form in schema["enum"] if form != first)]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(nouns(), indent=1, ensure_ascii=False) + "\n")
