"""One sign-in at an OIDC provider: the address to go to, the code that comes back, the claims behind it.

Authlib runs the OAuth client over `wire`; `providers` knows the provider, `id_token` holds its token to what was
asked. What the token leaves out is asked of UserInfo (OpenID Connect Core 1.0, section 5.3), because some providers put
nothing but the subject into it; who signed in, when and how, the token alone says. Nothing here touches our records.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote_plus

import requests
import structlog
from authlib.integrations.requests_client import OAuth2Session

from broker.identity import id_token, provider_http
from broker.identity.faults import ProviderDown, SignInRefused, quoted
from broker.identity.provider_http import ProviderUnusable
from broker.identity.providers import Provider, Providers

log = structlog.get_logger(__name__)
SCOPE = "openid email profile"
_LONGEST_CODE = 4096
_LONGEST_TOKEN = 8192
_METHODS = ("client_secret_basic", "client_secret_post")
# Basic without the encoding that RFC 6749 wants: what many providers take, since most secrets are the same either way.
_BARE = "client_secret_basic, as it is"
_NAMES = ("name", "preferred_username", "given_name", "family_name", "nickname")
_ADDRESS = ("email", "email_verified")
_OF_THE_TOKEN = frozenset(
    ("iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash", "sid")
)


@dataclass(frozen=True, slots=True)
class OidcClient:
    """Our registration at one provider. `others`: audiences its ID tokens may be for beside us."""

    issuer: str
    client_id: str
    client_secret: str | None = field(repr=False)
    redirect_uri: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectedResponse:
    """What one sign-in bound beforehand, and its answer must show. `max_age` is in seconds."""

    nonce: str
    code_verifier: str = field(repr=False)
    max_age: int


def authorization_url(
    providers: Providers, client: OidcClient, expected: ExpectedResponse, state: str, *, acr_values: str | None = None
) -> str:
    """Where to send the browser: code flow, PKCE S256, state, nonce, and always `max_age`.

    Raises:
        ProviderDown: the provider does not answer usefully.
    """
    provider = providers.discover(client.issuer)
    extra = {"acr_values": acr_values} if acr_values else {}
    with _session(providers, client) as session:
        url, _ = session.create_authorization_url(
            provider.authorization_endpoint,
            state=state,
            code_verifier=expected.code_verifier,
            nonce=expected.nonce,
            max_age=str(expected.max_age),
            **extra,
        )
        return str(url)


def check_callback_issuer(providers: Providers, issuer: str, answered: str | None) -> None:
    """Check the callback's `iss` (RFC 9207): required where the provider advertises it, right wherever it is sent.

    Raises:
        SignInRefused: it is missing or another's.
    """
    required = providers.discover(issuer).announces_iss
    if (answered is None and required) or (answered is not None and answered != issuer):
        raise SignInRefused("The browser came back without the provider's issuer (iss), or with another's.")


def exchange(
    providers: Providers,
    client: OidcClient,
    expected: ExpectedResponse,
    code: str,
    now: datetime,
    wanted: Collection[str] = (),
) -> dict[str, Any]:
    """Turn the code into the claims of a verified ID token; what it leaves out is asked of UserInfo.

    Args:
        wanted: names of claims that decide, beside those that are always wanted.

    Raises:
        SignInRefused: the provider refused the code, or the token is not what it must be.
        ProviderDown: the provider does not answer usefully.
    """
    provider = providers.discover(client.issuer)
    answer = _fetch_token(providers, client, provider, expected, code)
    try:
        claims = id_token.verified(answer.get("id_token"), provider, providers)
        asked = id_token.ExpectedClaims(client.client_id, expected.nonce, expected.max_age, client.others)
        id_token.check(claims, provider, asked, now)
    except id_token.TokenRefused as error:
        raise SignInRefused(f"The provider's ID token is refused: {error}.") from error
    return with_userinfo(providers, provider, claims, answer.get("access_token"), wanted)


def try_client(providers: Providers, client: OidcClient, provider: Provider) -> str:
    """Ask the token endpoint with a code that nobody was given. Returns what is wrong with the client; empty: nothing.

    Raises:
        ProviderDown: the provider does not answer usefully.
    """
    nobody = ExpectedResponse("", "0" * 64, 0)
    try:
        _fetch_token(providers, client, provider, nobody, "a-code-that-was-never-given")
    except ClientRefused as error:
        return error.reason
    except SignInRefused:
        # The code was refused, and so not the client.
        return ""
    return ""


class ClientRefused(SignInRefused):
    """The provider does not take our client id or secret."""


def _fetch_token(
    providers: Providers, client: OidcClient, provider: Provider, expected: ExpectedResponse, code: str
) -> Mapping[str, Any]:
    if len(code) > _LONGEST_CODE or not all(" " <= letter <= "~" for letter in code):
        raise SignInRefused("The browser came back with an invalid code.")
    at = (provider.issuer, client.client_id)
    methods = sorted(_methods(client, provider), key=lambda method: method != providers.methods.get(at))
    fault: ClientRefused | None = None
    # What a provider offers, and what it registered this client for, may differ; a client refused burns no code.
    for method in methods:
        try:
            told = _ask_for_token(providers, client, provider, expected, code, method)
        except ClientRefused as error:
            fault = error
        else:
            providers.methods[at] = method
            return told
    assert fault is not None
    raise fault


def _ask_for_token(
    providers: Providers, client: OidcClient, provider: Provider, expected: ExpectedResponse, code: str, method: str
) -> Mapping[str, Any]:
    endpoint = provider.token_endpoint
    try:
        answer = providers.faults.guarded(
            endpoint, lambda: _answered(providers, client, provider, expected, code, method)
        )
        if answer.status_code >= 500:
            # Not remembered as a fault: strangers' codes would be enough to keep everybody out.
            raise ProviderUnusable(f"it answers {answer.status_code}{provider_http.oauth_error_text(answer)}")
        told = provider_http.as_json(answer) if answer.ok else None
    except ProviderUnusable as error:
        providers.forget(provider)
        raise ProviderDown(f"The provider's token endpoint ({endpoint}) cannot be used: {error.why}.") from error
    if isinstance(told, dict) and "error" not in told:
        return told
    raise _refusal(answer)


def _answered(
    providers: Providers, client: OidcClient, provider: Provider, expected: ExpectedResponse, code: str, method: str
) -> requests.Response:
    kept: list[requests.Response] = []

    def keep(answer: requests.Response) -> requests.Response:
        kept.append(answer)
        return _EMPTY

    with _session(providers, client, method) as session:
        # Authlib would read an answer whatever it is; what it is, is decided here.
        session.register_compliance_hook("access_token_response", keep)
        session.fetch_token(
            provider.token_endpoint,
            code=code,
            code_verifier=expected.code_verifier,
            grant_type="authorization_code",
            allow_redirects=False,
        )
    return kept[0]


def _refusal(answer: requests.Response) -> SignInRefused:
    said = f"it answers {answer.status_code}{provider_http.oauth_error_text(answer)}"
    if answer.status_code == 401 or any(name in said for name in ("invalid_client", "unauthorized_client")):
        return ClientRefused(f"The provider's token endpoint does not accept our client id and secret: {said}.")
    return SignInRefused(f"The provider's token endpoint refuses the code: {said}.")


def _empty() -> requests.Response:
    """What Authlib is given to read instead: an answer that says nothing."""
    made = requests.Response()
    made.status_code, made._content = 200, b"{}"
    return made


_EMPTY = _empty()


def _session(providers: Providers, client: OidcClient, method: str = "none") -> Any:
    session = OAuth2Session(
        client.client_id,
        client.client_secret,
        scope=SCOPE,
        redirect_uri=client.redirect_uri,
        code_challenge_method="S256",
        token_endpoint_auth_method=method,
    )
    session.register_client_auth_method(("client_secret_basic", partial(_basic, encode=_form_encoded)))
    session.register_client_auth_method((_BARE, partial(_basic, encode=str)))
    return providers.wire.bound(session)


def _methods(client: OidcClient, provider: Provider) -> list[str]:
    """How the secret may be shown, as the provider offers.

    Raises:
        ClientRefused: it offers no way that a secret can be shown by.
    """
    if client.client_secret is None:
        return ["none"]
    offered = [method for method in _METHODS if method in provider.token_auth_methods]
    if not offered:
        ways = quoted(", ".join(provider.token_auth_methods))
        raise ClientRefused(f"The provider's token endpoint takes no client secret, only: {ways}.")
    given = (client.client_id, client.client_secret)
    if "client_secret_basic" in offered and any(_form_encoded(part) != part for part in given):
        offered.append(_BARE)
    return offered


def _form_encoded(part: str) -> str:
    return quote_plus(part, safe="*")


def _basic(
    client: Any, _method: str, uri: str, headers: dict[str, str], body: str, *, encode: Callable[[str], str]
) -> tuple[str, dict[str, str], str]:
    """Id and secret in the header; form-encoded first as RFC 6749 has it (section 2.3.1), which Authlib leaves out."""
    pair = ":".join(encode(part) for part in (client.client_id, client.client_secret))
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return uri, headers, body


def with_userinfo(
    providers: Providers, provider: Provider, claims: dict[str, Any], access_token: Any, wanted: Collection[str]
) -> dict[str, Any]:
    """The claims, with those that the ID token lacks.

    Args:
        wanted: names of claims that decide which source a person belongs to.

    Raises:
        SignInRefused: UserInfo speaks of somebody else.
        ProviderDown: a claim that decides is missing, and UserInfo does not answer usefully.
    """
    decides = [name for name in wanted if name not in claims]
    if not decides and all(name in claims for name in ("name", *_ADDRESS)):
        return claims
    endpoint = provider.userinfo_endpoint
    if endpoint is None or not id_token.is_visible(access_token, _LONGEST_TOKEN):
        return claims
    try:
        told = providers.faults.guarded(endpoint, lambda: _object(providers.wire.get_json(endpoint, access_token)))
    except ProviderUnusable as error:
        log.warning("userinfo.unusable", issuer=provider.issuer, why=error.why)
        if decides:
            lacks = quoted(", ".join(decides))
            raise ProviderDown(
                f"The ID token lacks {lacks}, and UserInfo ({endpoint}) cannot be used: {error.why}."
            ) from error
        return claims
    # The one thing that makes it the same person's (section 5.3.2).
    if told.get("sub") != claims["sub"]:
        raise SignInRefused("The provider's UserInfo is about another person (its sub differs from the ID token's).")
    return _merged(claims, told, wanted)


def _merged(claims: Mapping[str, Any], told: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    names = [name for name in (*_NAMES, *wanted) if name not in (*_ADDRESS, *_OF_THE_TOKEN, *claims)]
    # An address and whether it is verified are one statement: never half of it from either.
    if told.get("email") == claims.get("email", told.get("email")):
        names += [name for name in _ADDRESS if name not in claims]
    return {**claims, **{name: told[name] for name in names if name in told}}


def _object(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ProviderUnusable("it answers something else than a JSON object (signed answers are not read)")
    return told
