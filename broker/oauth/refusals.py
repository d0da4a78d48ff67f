"""Requests and refusals in OAuth's own form: parameters at most once, errors (RFC 6749, 5.2), and the command line's
authorization requests (RFC 6749 4.1, RFC 7636, RFC 8252): S256 only, to its own address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from broker.identity.sessions import COMMAND_LINE

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
        said = {"error": error, "error_description": _printable(description)}
        self.location = answer_address(redirect_uri, state, issuer, **said)


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


_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# A native client's own address (RFC 8252, 7.3): loopback, any port. As a whole and by the letter: what parsers make
# of tabs, user names and empty queries never matters.
_CALLBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}/callback")


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A checked authorization request of the command line."""

    redirect_uri: str
    state: str
    code_challenge: str


def check_request(parameters: dict[str, str], issuer: str) -> AuthorizationRequest:
    """Check an authorization request.

    Raises:
        OAuthRefused: shown on a page of ours: nothing is sent to an address that may not be the client's.
        AuthorizationRefused: sent to the client, whose address is right.
    """
    if parameters.get("client_id") != COMMAND_LINE:
        raise OAuthRefused("invalid_client", f"The only client here is {COMMAND_LINE}.")
    redirect_uri = parameters.get("redirect_uri", "")
    if _CALLBACK.fullmatch(redirect_uri) is None:
        raise OAuthRefused("invalid_request", "redirect_uri must be http://127.0.0.1:<port>/callback.")
    state, challenge = parameters.get("state", ""), parameters.get("code_challenge", "")
    if (wrong := _wrong(parameters)) is not None:
        raise AuthorizationRefused(*wrong, redirect_uri=redirect_uri, state=state, issuer=issuer)
    return AuthorizationRequest(redirect_uri, state, challenge)


def _wrong(parameters: dict[str, str]) -> tuple[str, str] | None:
    """What is wrong with a request of the right client from its right address: OAuth's code, and a description."""
    if not parameters.get("response_type"):
        return "invalid_request", "response_type is missing; only code is served."
    if parameters["response_type"] != "code":
        return "unsupported_response_type", "Only response_type=code is served."
    if parameters.get("response_mode", "query") != "query":
        return "invalid_request", "Only response_mode=query is served."
    challenge, state = parameters.get("code_challenge", ""), parameters.get("state", "")
    if parameters.get("code_challenge_method") != "S256" or _CHALLENGE.fullmatch(challenge) is None:
        return "invalid_request", "PKCE with code_challenge_method=S256 is required."
    if not 8 <= len(state) <= 512 or not state.isprintable():
        return "invalid_request", "A state of 8 to 512 characters is required."
    return None


def answer_address(redirect_uri: str, state: str, issuer: str, **members: str) -> str:
    """The client's address with an answer: a code, or an error (RFC 6749, 4.1.2).

    The issuer is named so that a code can never be handed to another server's token endpoint (RFC 9207).
    """
    return f"{redirect_uri}?{urlencode(members | ({'state': state} if state else {}) | {'iss': issuer})}"
