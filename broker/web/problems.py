"""Errors as people and programs read them: problem documents (RFC 9457), with a page for each type.

The catalogue of types comes first: each stable code, its title, what it means and what to do. This is the only place
where the broker's errors meet HTTP. Texts of backends and tracebacks never pass through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import Request

from broker.base import errors
from broker.policies import Reason


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type of problem, as its page at `/problems/<code>` tells it."""

    code: str
    title: str
    meaning: str
    advice: str


# Title, meaning and advice, by code.
_TYPES = {
    "invalid": (
        "The request is not valid",
        "A field is missing, malformed, unknown, or holds something that is not allowed there. Nothing was changed.",
        "Correct the fields named in `errors` and send the request again.",
    ),
    "malformed": (
        "The request could not be read",
        "The body is not JSON, a header is malformed, or the request line is not HTTP.",
        "Send a JSON body with `Content-Type: application/json`.",
    ),
    "not_signed_in": (
        "You are not signed in",
        "No session or token came with the request, or it has ended.",
        "Sign in with `guestkey login`, or in the portal.",
    ),
    "person_pending": (
        "An admin has not confirmed you yet",
        "You have signed in and joined. An admin of the organisation must confirm that you are the person invited.",
        "Tell your contact at the organisation that you have joined, then sign in again.",
    ),
    "sign_in_refused": (
        "The sign-in was refused",
        "The identity provider refused the sign-in, or its answer could not be verified.",
        "Sign in again. If it keeps failing, tell the operator the request id.",
    ),
    "unknown": (
        "This account has not joined",
        "The sign-in worked, but this account has not joined.",
        "Open the invitation link you were sent, then sign in.",
    ),
    "lease_over": (
        "The lease is ending or has ended",
        "The lease was revoked, has expired, or is being ended. An ended lease cannot be used again.",
        "Get a new credential.",
    ),
    "not_longer": (
        "The lease cannot be extended",
        "The lease already lasts as long as its grant, the rule and the limit of twelve hours allow.",
        "Get a new credential when it has ended.",
    ),
    "not_renewable": (
        "This kind of credential cannot be renewed",
        "The expiry of a signed token is fixed when it is issued.",
        "Get a new credential.",
    ),
    "closed": (
        "Guestkey is closed",
        "An admin closed the installation, or its records were restored from a backup. No credentials are issued.",
        "Ask your contact at the organisation when it will open.",
    ),
    "account_suspended": (
        "This account is suspended",
        "An admin or your lead has suspended this account. Its sessions, tokens and credentials have ended.",
        "Ask your contact at the organisation.",
    ),
    "joining_refused": (
        "Your joining was refused",
        "You joined through a link that was meant for someone else, so an admin or lead refused it.",
        "Ask the person who invited you for your own link.",
    ),
    "link_invalid": (
        "This link is no longer valid",
        "Invitation and enrolment links work once and expire.",
        "Ask the person who sent it for a new one.",
    ),
    "link_used": (
        "This link has been used",
        "Invitation and enrolment links work once.",
        "Sign in if it was you; otherwise tell the person who sent it.",
    ),
    "link_foreign": (
        "This link is for someone else",
        "An invitation or enrolment link works only for one sign-in source or one person.",
        "Sign in as the person it is for, or ask for your own link.",
    ),
    "wrong_code": (
        "The code is not correct",
        "A one-time code works once, for half a minute. This one was mistyped, expired, or already used.",
        "Wait for the next code and try again. After several wrong ones the account is locked for a while.",
    ),
    "passkey_refused": (
        "The passkey could not be verified",
        "The authenticator's answer does not match one of your passkeys, this session, or this address.",
        "Try again, or use another factor.",
    ),
    "enrolment_closed": (
        "Your first second factor needs an invitation",
        "Someone who only has your password must not be able to add your second factor.",
        "Ask an admin for an enrolment link and open it while signed in.",
    ),
    "last_factor": (
        "You cannot remove your last second factor",
        "Without a second factor you could not get access again.",
        "Add another one first.",
    ),
    "insufficient_user_authentication": (
        "A fresh second factor is needed",
        "This session has not confirmed a second factor recently enough for this request (RFC 9470).",
        "Confirm with `guestkey confirm` or in the portal, then try again.",
    ),
    "forbidden": (
        "You may not do this",
        "You are signed in, but your roles do not allow this action.",
        "Ask someone who has the role named, or an admin.",
    ),
    "csrf": (
        "The form is not from this session",
        "A request with a session cookie must carry that session's CSRF token.",
        "Reload the page and send the form again.",
    ),
    "denied": (
        "No credential was issued",
        "Every condition was checked and at least one is not met. `reasons` lists all that are not met.",
        "See each reason's advice. `guestkey why DATASET` repeats the checks without issuing anything.",
    ),
    "not_found": (
        "There is nothing here",
        "It does not exist, or you cannot see it. The answer is the same in both cases.",
        "Check the name. If you expected access, ask the dataset's owner or your contact at the organisation.",
    ),
    "method_not_allowed": (
        "This method is not allowed here",
        "The address exists, but not for this HTTP method.",
        "The `Allow` header names the methods; /openapi.json describes them all.",
    ),
    "conflict": (
        "This conflicts with the current state",
        "The request cannot succeed now: something has changed, has ended, or already exists.",
        "Check the current state, then decide whether to try again.",
    ),
    "too_many_leases": (
        "Too many live leases",
        "A grant allows a limited number of live leases at a time.",
        "End one with `guestkey lease revoke`, or wait until one expires.",
    ),
    "ended_meanwhile": (
        "Access ended while the credential was being issued",
        "Something that the credential depends on ended before it was delivered. It was revoked; no one received it.",
        "`guestkey why DATASET` says what is missing now.",
    ),
    "facts_changed": (
        "The facts changed while you were deciding",
        "What you saw when you opened the request has changed since.",
        "Open the request again, check what has changed, and decide again.",
    ),
    "proposed_already": (
        "This has already been proposed",
        "The same change was proposed and is still waiting for a second person.",
        "Find it with `guestkey proposal list`, and ask someone to approve or refuse it.",
    ),
    "grant_pointless": (
        "The grant would not give access",
        "No credential could be issued under such a grant now. The detail says why.",
        "Choose another role or slice, or fix the cause first.",
    ),
    "self_decision": (
        "You cannot decide about yourself",
        "You requested this, or it would give you access, so another person must decide.",
        "Ask another owner, steward or admin.",
    ),
    "file_unusable": (
        "The file cannot be used",
        "Its encoding, its heading or its length is not accepted. None of its lines was processed.",
        "Save it as “CSV UTF-8” with the heading given in the answer. Split it if it is too long.",
    ),
    "line_unusable": (
        "The line cannot be used",
        "A line of the file has too many or too few cells, or a cell that is not valid for its column.",
        "Correct the line named and send the file again. Lines already processed are not processed twice.",
    ),
    "formula": (
        "A cell looks like a formula",
        "A spreadsheet would run a cell that begins with =, +, -, @, | or %, so such cells are refused.",
        "Correct it, or put an apostrophe in front of it if the text is meant literally.",
    ),
    "duplicate_line": (
        "Two lines are the same",
        "An earlier line of the file is for the same person or grant. Only the first was processed.",
        "Remove one of the two. Give e-mail addresses to distinguish two people with the same name.",
    ),
    "idempotency_key_reused": (
        "This idempotency key was used for something else",
        "An idempotency key identifies one request. The same key was sent with a different request.",
        "Use a new key for a new request.",
    ),
    "rules_invalid": (
        "The rules were refused",
        "At least one line of the rules is not valid, so none of them was accepted.",
        "Correct the lines named and check again with `guestkey policy check`.",
    ),
    "too_large": (
        "The request is too large",
        "The body, a header or the address is longer than the limit.",
        "Send a smaller request.",
    ),
    "too_slow": (
        "The request came too slowly",
        "A request must arrive within seconds; a long one at one kilobyte per second at least.",
        "Send it again. If it keeps failing, the connection is too slow.",
    ),
    "misdirected": (
        "This server is not known by that name",
        "The `Host` header names another host than this installation's public address.",
        "Use the public address of this installation.",
    ),
    "tls_needed": (
        "This request was not encrypted with TLS",
        "The public address of this installation is https, and nothing is answered in the clear. What was sent could"
        " have been read on its way.",
        "Use the https address, and end a token that was sent. Operators: have the front set `X-Forwarded-Proto`, and"
        " name its network in GUESTKEY_TRUSTED_PROXIES.",
    ),
    "too_many_requests": (
        "Too many requests",
        "A rate limit or a lockout is in force.",
        "Wait the seconds given in `Retry-After`, then try again.",
    ),
    "backend_down": (
        "A backend is not responding",
        "PostgreSQL, OpenBao or an identity provider did not respond in time, so the request was refused.",
        "Try again in a minute. If it keeps failing, tell the operator: /readyz shows what is missing.",
    ),
    "internal": (
        "Internal error",
        "Guestkey failed to handle the request. The log has the error under the request id given as `instance`.",
        "Try again. If it keeps failing, tell the operator the request id.",
    ),
}
CATALOGUE = {code: ProblemType(code, *texts) for code, texts in _TYPES.items()}
_BY_STATUS = {
    400: "malformed",
    401: "not_signed_in",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "conflict",
    413: "too_large",
    414: "too_large",
    415: "malformed",
    421: "misdirected",
    422: "invalid",
    429: "too_many_requests",
    431: "too_large",
    503: "backend_down",
}


def code_of_status(status: int) -> str:
    """The code of the type that fits an HTTP status when nothing more is known."""
    return _BY_STATUS.get(status, "malformed" if status < 500 else "internal")


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
    body = body_of(request.app.state.public_url, code, status, detail, advice)
    members = {"instance": request_id(request), **members}
    return JSONResponse(body | members, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def body_of(public_url: str, code: str, status: int, detail: str = "", advice: str = "") -> dict[str, Any]:
    """A problem document, without what only a request that was read has."""
    entry = CATALOGUE.get(code) or CATALOGUE[code_of_status(status)]
    return {
        "type": f"{public_url}/problems/{entry.code}",
        "title": entry.title,
        "status": status,
        "detail": detail or entry.meaning,
        "code": code,
        "advice": advice or entry.advice,
    }


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


def _members(error: errors.GuestkeyError) -> dict[str, Any]:
    if isinstance(error, errors.Denied):
        return {
            "reasons": [reason_shown(reason) for reason in error.decision.reasons],
            "passed": list(error.decision.passed),
            "decision_id": error.decision_id,
            "policy_revision": error.decision.revision,
        }
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
