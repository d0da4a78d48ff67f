"""Refusals in OAuth's own form (RFC 6749, section 5.2), and parameters as OAuth wants them: each at most once."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

MOST_PARAMETER = 4096
FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class OAuthRefused(Exception):
    """An error of an OAuth endpoint: `error` is the registered code, `description` is for developers."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.status = error, description, status


class AuthorizationRefused(OAuthRefused):
    """An error of the authorization endpoint that goes to the client (RFC 6749, 4.1.2.1): its address was checked.

    `location` is that address with error, state and issuer (RFC 9207).
    """

    def __init__(self, error: str, description: str, *, redirect_uri: str, state: str, issuer: str) -> None:
        super().__init__(error, description)
        members = {"error": error, "error_description": _printable(description)}
        members |= {"state": state} if state else {}
        self.location = f"{redirect_uri}?{urlencode({**members, 'iss': issuer})}"


def render(error: OAuthRefused) -> JSONResponse:
    """The JSON body RFC 6749 asks for."""
    headers = dict(_NO_STORE)
    if error.status == 401:
        bearer = error.error == "invalid_token"
        headers["WWW-Authenticate"] = f'Bearer error="{error.error}"' if bearer else 'Basic realm="guestkey"'
    body = {"error": error.error, "error_description": _printable(error.description)}
    return JSONResponse(body, error.status, headers=headers)


async def form_of(request: Request) -> dict[str, str]:
    """The form's parameters.

    Raises:
        OAuthRefused: one is repeated, oversized, or not text; or the body is no URL-encoded form (RFC 6749, 3.2).
    """
    # A multipart body may choose how its text is decoded, into characters that nothing further on can encode.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthRefused("invalid_request", f"The body must be a form: {FORM}.")
    try:
        form = await request.form()
    except HTTPException as error:
        raise OAuthRefused("invalid_request", "The form cannot be read.") from error
    return _single([(name, str(value)) for name, value in form.multi_items()])


def query_of(request: Request) -> dict[str, str]:
    """The query's parameters, under the same rules."""
    return _single(request.query_params.multi_items())


def no_store() -> dict[str, str]:
    """Headers of answers that hold a secret."""
    return dict(_NO_STORE)


def _single(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise OAuthRefused("invalid_request", "A parameter was given twice.")
    if any(len(value) > MOST_PARAMETER or "\x00" in value for value in found.values()):
        raise OAuthRefused("invalid_request", "A parameter is too long or not text.")
    return found


def _printable(text: str) -> str:
    """What RFC 6749 lets a description hold: printable ASCII without `"` and backslash."""
    plain = text.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")
    return "".join(character if character.isprintable() else " " for character in plain)
