"""What OpenAPI says of `/oauth/*`: forms instead of JSON, and OAuth's own errors (RFC 6749, 5.2). Data only."""

from __future__ import annotations

from typing import Any

_FORM = "application/x-www-form-urlencoded"
_ERROR = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {
            "type": "string",
            "enum": [
                "access_denied",
                "invalid_client",
                "invalid_grant",
                "invalid_request",
                "invalid_scope",
                "invalid_target",
                "invalid_token",
                "temporarily_unavailable",
                "unauthorized_client",
                "unsupported_grant_type",
                "unsupported_response_type",
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
        "redirect_uri": {
            "type": "string",
            "description": "Of `authorization_code`: as in the request for the code.",
        },
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
