"""The OpenAPI description: tags, security schemes, and the problem document on every operation."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from broker.identity.nouns import declared
from broker.kinds.discovery import kinds
from broker.web.catalogue import CATALOGUE, code_of_status
from broker.web.openapi_oauth import describe_oauth

DESCRIPTION = """\
Guests of your data get a key to one dataset, for a few minutes, after a fresh second factor.

Errors are problem documents (RFC 9457) with a stable `code`; each has a page at `/problems/{code}`. Lists come as
`{items, next_cursor}`; pass `next_cursor` as `cursor` for more. Times are ISO 8601 in UTC, durations whole seconds.
A `POST` that makes something takes an `Idempotency-Key`; a repeat within a day gets the first answer, without secrets.
"""
# Of what is no noun.
TAGS = {
    "me": "Your account, your second factor, your sessions and tokens.",
    "connections": "Connections, and the names of tables and columns in databases.",
    "kinds": "Kinds of credentials, and how each ends.",
    "policy": "The rules in force, and changing them.",
    "installation": "Whether the whole installation is open, and closing it.",
    "notices": "Your notices and how you get them; webhooks and chats of the organisation.",
    "events": "The audit log.",
    **{kind.name: kind.asked_by_hosts for kind in kinds.values() if kind.asked_by_hosts},
    "oauth": "The authorization server: tokens, keys, metadata. Errors come in OAuth's own form (RFC 6749).",
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "advice", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "examples": sorted(CATALOGUE)},
        "advice": {"type": "string", "description": "What to do next."},
        "instance": {"type": "string", "description": "The request id, also in the log and in X-Request-Id."},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}},
        },
        "reasons": {
            "type": "array",
            "description": "For a denial: every condition that is not met.",
            "items": {
                "type": "object",
                "properties": {
                    "code": {"type": "string"},
                    "sentence": {"type": "string"},
                    "advice": {"type": "string"},
                    "who": {"type": "string", "description": "Who can fix it: you, time, or someone."},
                    "rule": {"type": ["string", "null"]},
                    "opens_at": {"type": ["string", "null"], "format": "date-time"},
                },
            },
        },
    },
}
_PAGES = re.compile(r"\b(?:Page|Whole)_(\w+?)Shown_\b")
_PLURALS = {"Person": "People", "Delivery": "Deliveries"}
_EVERYWHERE = (400, 401, 403, 404, 409, 413, 414, 422, 429, 431, 503)


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` complete; computed when first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def tags() -> dict[str, str]:
    """What is said of each group of operations."""
    return {noun.plural: noun.about for noun in declared() if noun.about} | TAGS


def _build(app: FastAPI) -> dict[str, Any]:
    described = get_openapi(
        title="Guestkey",
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in tags().items()],
        servers=[{"url": app.state.public_url}],
    )
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "The token of a command line or service."},
        "basic": {"type": "http", "scheme": "basic", "description": "A service's id and client secret."},
        "session": {"type": "apiKey", "in": "cookie", "name": "__Host-guestkey", "description": "A browser's session."},
    }
    described["security"] = [{"bearer": []}, {"session": []}]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            if path.startswith("/api/"):
                _add_problems(operation["responses"])
            else:
                operation["security"] = []
                operation["responses"].pop("422", None)
    describe_oauth(described)
    named: dict[str, Any] = json.loads(_PAGES.sub(_plural, json.dumps(described)))
    return named


def _plural(page: re.Match[str]) -> str:
    """What a page of a list is called: after what is on it."""
    return _PLURALS.get(page[1], f"{page[1]}s")


def _add_problems(responses: dict[str, Any]) -> None:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in _EVERYWHERE:
        title = CATALOGUE[code_of_status(status)].title
        responses[str(status)] = {"description": title, "content": content}
