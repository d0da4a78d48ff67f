"""Authorization requests of the command line (RFC 6749 4.1, RFC 7636, RFC 8252): S256 only, to its own address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode

from broker.identity.api_tokens import COMMAND_LINE
from broker.oauth.refusals import AuthorizationRefused, OAuthRefused

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


def handing_over(asked: AuthorizationRequest, issuer: str, code: str) -> str:
    """The address that hands a code to the command line."""
    return _answer(asked, issuer, code=code)


def denial_redirect(asked: AuthorizationRequest, issuer: str) -> str:
    """The address that tells the command line that the person said no (RFC 6749, 4.1.2.1)."""
    return _answer(asked, issuer, error="access_denied", error_description="You declined in the browser.")


def _answer(asked: AuthorizationRequest, issuer: str, **members: str) -> str:
    # The issuer is named so that a code can never be handed to another server's token endpoint (RFC 9207).
    return f"{asked.redirect_uri}?{urlencode({**members, 'state': asked.state, 'iss': issuer})}"
