"""The OpenAPI description: tags, security schemes, the problem document on every operation, and OAuth's own forms."""

from __future__ import annotations

import json
import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from broker.identity.nouns import declared
from broker.kinds.discovery import kinds
from broker.web.problems import CATALOGUE, code_of_status

_FORM = "application/x-www-form-urlencoded"
_ERROR = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {
            "type": "string",
            "enum": [
                *("access_denied", "temporarily_unavailable", "unauthorized_client"),
                *(
                    "invalid_client",
                    "invalid_grant",
                    "invalid_request",
                    "invalid_scope",
                    "invalid_target",
                    "invalid_token",
                ),
                *("unsupported_grant_type", "unsupported_response_type"),
            ],
        },
        "error_description": {"type": "string", "description": "For developers; of a denial, every reason."},
    },
}
_SECRET = {
    "client_id": {"type": "string", "description": "Here, or as the user's name of HTTP Basic, form-encoded."},
    "client_secret": {"type": "string", "description": "Of a service: here, or as the password of HTTP Basic."},
}
_TOKEN_FORM = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"type": "string", "enum": ["authorization_code", "client_credentials"]},
        **_SECRET,
        "code": {"type": "string", "description": "Of `authorization_code`: good once, for a minute."},
        "redirect_uri": {"type": "string", "description": "Of `authorization_code`: as in the request for the code."},
        "code_verifier": {"type": "string", "description": "Of `authorization_code`: PKCE (RFC 7636), S256."},
        "resource": {
            "type": "string",
            "format": "uri",
            "description": "Of `client_credentials`: `<address>/datasets/<slug>`, for a signed token (RFC 8707).",
        },
        "scope": {"type": "string", "examples": ["read slice:deidentified"]},
    },
}
_TOKEN = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in"],
    "properties": {
        "access_token": {"type": "string"},
        "token_type": {"type": "string", "enum": ["Bearer"]},
        "expires_in": {"type": "integer", "description": "Seconds."},
        "scope": {"type": "string", "description": "Of a signed token: as in its claim `scope`."},
    },
}
_ONE_TOKEN = {
    "type": "object",
    "required": ["token"],
    "properties": {"token": {"type": "string"}, "token_type_hint": {"type": "string"}, **_SECRET},
}
_INTROSPECTED = {
    "type": "object",
    "required": ["active"],
    "properties": {
        "active": {"type": "boolean"},
        "token_type": {"type": "string"},
        **{name: {"type": "string"} for name in ("iss", "sub", "aud", "client_id", "jti", "scope", "dataset", "slice")},
        **{name: {"type": "integer"} for name in ("iat", "exp")},
    },
}
_MEANINGS = {
    "400": "The request is wrong: `error` says in which way",
    "401": "The client is unknown, its secret is wrong, or its way of authenticating is not served",
    "403": "The gate or the client's kind forbids it",
    "409": "Try again: the same is under way",
    "429": "Too many requests; `Retry-After` says when",
    "503": "A backend is not responding; `Retry-After` says when",
}
# Form, answer, errors, and how the client proves itself.
_ENDPOINTS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...], list[dict[str, list[str]]]]] = {
    "/oauth/token": (_TOKEN_FORM, _TOKEN, ("400", "401", "403", "409", "429", "503"), [{}, {"basic": []}]),
    "/oauth/revoke": (_ONE_TOKEN, {"type": "object"}, ("400", "429", "503"), []),
    "/oauth/introspect": (
        _ONE_TOKEN,
        _INTROSPECTED,
        ("400", "401", "403", "429", "503"),
        [{"basic": []}, {"bearer": []}, {}],
    ),
}
_QUESTION = {
    "response_type": "`code`; nothing else is served.",
    "client_id": "`guestkey-cli`.",
    "redirect_uri": "`http://127.0.0.1:<port>/callback`.",
    "code_challenge": "PKCE (RFC 7636).",
    "code_challenge_method": "`S256`.",
    "state": "8 to 512 characters; comes back with the answer.",
}


def describe_oauth(described: dict[str, Any]) -> None:
    """Add forms, answers and errors to the description of the whole API, in place."""
    described["components"]["schemas"]["OAuthError"] = _ERROR
    for path, (form, answer, errors, security) in _ENDPOINTS.items():
        operation = described["paths"][path]["post"]
        operation["security"] = security
        operation["requestBody"] = {"required": True, "content": {_FORM: {"schema": form}}}
        operation["responses"] = {
            "200": {"description": "As asked", "content": {"application/json": {"schema": answer}}},
            **{status: _refusal(_MEANINGS[status]) for status in errors},
        }
    described["paths"]["/oauth/authorize"] = {"get": _authorization()}


def _authorization() -> dict[str, Any]:
    return {
        "tags": ["oauth"],
        "operationId": "oauth_authorize",
        "summary": "Ask a person, in their browser, to let a command line act for them (RFC 6749, 4.1)",
        "description": "Saying yes leads to the client, with a code that is good once and for a minute.",
        "security": [{"session": []}],
        "parameters": [
            {"name": name, "in": "query", "required": True, "schema": {"type": "string"}, "description": text}
            for name, text in _QUESTION.items()
        ],
        "responses": {
            "200": {"description": "The page that asks", "content": {"text/html": {"schema": {"type": "string"}}}},
            "303": {
                "description": "To sign-in; or to the client, with `error`, `error_description`, `state` and `iss`"
                " (RFC 6749, 4.1.2.1, RFC 9207)"
            },
            "400": _refusal("The client or its address is not known: nothing is sent there"),
        },
    }


def _refusal(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}},
    }


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
_TEXT = {"type": "string"}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "advice", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        **dict.fromkeys(("title", "detail"), _TEXT),
        "status": {"type": "integer"},
        "code": {"type": "string", "examples": sorted(CATALOGUE)},
        "advice": {"type": "string", "description": "What to do next."},
        "instance": {"type": "string", "description": "The request id, also in the log and in X-Request-Id."},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": dict.fromkeys(("pointer", "detail"), _TEXT)},
        },
        "reasons": {
            "type": "array",
            "description": "For a denial: every condition that is not met.",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("code", "sentence", "advice"), _TEXT),
                    "who": {"type": "string", "description": "Who can fix it: you, time, or someone."},
                    "rule": {"type": ["string", "null"]},
                    "opens_at": {"type": ["string", "null"], "format": "date-time"},
                },
            },
        },
    },
}
# A page of a list is called after what is on it.
_PAGES = re.compile(r"\b(?:Page|Whole)_(\w+?)(?:Shown)?_\b")
_PLURALS = {"Person": "People", "Delivery": "Deliveries", "SignIn": "Sessions", "Reach": "Who"}
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
    named: dict[str, Any] = json.loads(
        _PAGES.sub(lambda page: _PLURALS.get(page[1], f"{page[1]}s"), json.dumps(described))
    )
    return named


def _add_problems(responses: dict[str, Any]) -> None:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in _EVERYWHERE:
        title = CATALOGUE[code_of_status(status)].title
        responses[str(status)] = {"description": title, "content": content}
