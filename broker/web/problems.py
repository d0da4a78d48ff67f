"""Errors as people and programs read them: problem documents (RFC 9457), with a page for each type.

The only place where the broker's errors meet HTTP. Texts of backends and tracebacks never pass through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request

from broker.base import errors
from broker.policies import Decision, Reason
from broker.web.catalogue import CATALOGUE, code_of_status

MEDIA_TYPE = "application/problem+json"
_STATUS: tuple[tuple[type[errors.GuestkeyError], int], ...] = (
    (errors.Invalid, 422),
    (errors.NotSignedIn, 401),
    (errors.FactorNeeded, 401),
    (errors.Forbidden, 403),
    (errors.Denied, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooMany, 429),
    (errors.BackendDown, 503),
)


def status_of(error: errors.GuestkeyError) -> int:
    """The HTTP status an error is told with."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    request: Request,
    code: str,
    status: int,
    detail: str = "",
    *,
    advice: str = "",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """One problem document; `code` names its type and must be in the catalogue to have a page."""
    entry = CATALOGUE.get(code) or CATALOGUE[code_of_status(status)]
    body = {
        "type": f"{request.app.state.public_url}/problems/{entry.code}",
        "title": entry.title,
        "status": status,
        "detail": detail or entry.meaning,
        "code": code,
        "advice": advice or entry.advice,
        "instance": request_id(request),
        **members,
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def render(request: Request, error: errors.GuestkeyError) -> JSONResponse:
    """The problem document of one of the broker's own errors."""
    return problem(
        request,
        error.code,
        status_of(error),
        error.detail,
        advice=error.advice,
        headers=_headers(request, error),
        **_members(error),
    )


def request_id(request: Request) -> str:
    """The id this request has in logs, answers and problem documents."""
    return str(request.scope.get("state", {}).get("request_id", ""))


def decision_members(decision: Decision, decision_id: str) -> dict[str, Any]:
    """What a caller is told of a decision about itself: every reason, what passed, and where the rule is."""
    return {
        "reasons": [reason_shown(reason) for reason in decision.reasons],
        "passed": list(decision.passed),
        "decision_id": decision_id,
        "policy_revision": decision.revision,
    }


def _members(error: errors.GuestkeyError) -> dict[str, Any]:
    if isinstance(error, errors.Denied):
        return decision_members(error.decision, error.decision_id)
    if isinstance(error, errors.FactorNeeded):
        return {"max_age": error.max_age, "enrolled": error.enrolled}
    if isinstance(error, errors.Invalid) and error.field:
        return {"errors": [{"pointer": error.field, "detail": error.detail}]}
    if isinstance(error, errors.BackendDown):
        return {"backend": error.backend}
    return {}


def _headers(request: Request, error: errors.GuestkeyError) -> dict[str, str]:
    if isinstance(error, errors.FactorNeeded):
        challenge = (
            f'Bearer error="{error.code}", error_description="A second factor is needed", max_age={error.max_age}'
        )
        return {"WWW-Authenticate": challenge}
    if isinstance(error, errors.NotSignedIn):
        # Without a token no error is named (RFC 6750, 3.1).
        named = ', error="invalid_token"' if "authorization" in request.headers else ""
        return {"WWW-Authenticate": f'Bearer realm="guestkey"{named}'}
    if isinstance(error, errors.TooMany):
        return {"Retry-After": str(max(1, error.retry_after))}
    if isinstance(error, errors.BackendDown):
        return {"Retry-After": "10"}
    return {}


def reason_shown(reason: Reason) -> dict[str, Any]:
    """One unmet requirement, as answered."""
    return {
        "code": reason.code,
        "sentence": reason.sentence,
        "advice": reason.advice,
        "who": reason.who,
        "rule": reason.rule,
        "opens_at": reason.opens_at.isoformat() if reason.opens_at else None,
    }
