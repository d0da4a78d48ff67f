"""Clients that nobody here wrote, as their documentation says to use them: requests-oauthlib and Authlib."""

from __future__ import annotations

import secrets

import httpx
import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import (  # type: ignore[import-untyped]
    BackendApplicationClient,
    InvalidClientError,
    MobileApplicationClient,
    WebApplicationClient,
)
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session  # type: ignore[import-untyped]

from tests.oauth.conftest import CALLBACK, CommandLine, Program


@pytest.fixture(autouse=True)
def insecure_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' replica speaks plain HTTP on this machine, which oauthlib refuses unless told."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")


def allowed(line: CommandLine, address: str) -> str:
    """Say yes to a question in the browser; the address that the browser then goes to."""
    path = address.removeprefix(line.browser.portal)
    return line.browser.link(line.browser.submit(line.browser.open(path)), "hand-over")


def test_requests_oauthlib_signs_a_command_line_in(line: CommandLine) -> None:
    url = line.browser.portal
    session = OAuth2Session("guestkey-cli", redirect_uri=CALLBACK, pkce="S256", state=secrets.token_urlsafe(16))
    address, _ = session.authorization_url(f"{url}/oauth/authorize")
    token = session.fetch_token(
        f"{url}/oauth/token", authorization_response=allowed(line, address), include_client_id=True
    )
    assert session.get(f"{url}/api/v1/me").json()["id"] == line.signed.id
    assert token["token_type"] == "Bearer" and "scope" not in token


def test_requests_oauthlib_works_with_basic_authentication(line: CommandLine) -> None:
    """Its default: the client id as the user's name, and an empty password."""
    url = line.browser.portal
    session = OAuth2Session("guestkey-cli", redirect_uri=CALLBACK, pkce="S256", state=secrets.token_urlsafe(16))
    address, _ = session.authorization_url(f"{url}/oauth/authorize")
    session.fetch_token(
        f"{url}/oauth/token",
        authorization_response=allowed(line, address),
        auth=HTTPBasicAuth("guestkey-cli", ""),
    )
    assert session.get(f"{url}/api/v1/me").json()["id"] == line.signed.id


def test_requests_oauthlib_reads_error_responses(line: CommandLine) -> None:
    """A response type that is not served: the error comes to the client, which raises it by its name."""
    url = line.browser.portal
    session = OAuth2Session(
        client=MobileApplicationClient("guestkey-cli"), redirect_uri=CALLBACK, state=secrets.token_urlsafe(16)
    )
    address, state = session.authorization_url(f"{url}/oauth/authorize")
    answer = requests.get(address, allow_redirects=False, timeout=20)
    with pytest.raises(Exception, match=r"Only response_type=code is served"):
        WebApplicationClient("guestkey-cli").parse_request_uri_response(
            answer.headers["Location"].replace("http://", "https://"), state=state
        )


@pytest.mark.parametrize("way", ["basic", "form"])
def test_requests_oauthlib_gets_a_services_token(pipeline: Program, way: str) -> None:
    url = str(pipeline.http.base_url).rstrip("/")
    session = OAuth2Session(client=BackendApplicationClient(client_id=pipeline.id))
    given = (
        {"auth": HTTPBasicAuth(pipeline.id, pipeline.secret)}
        if way == "basic"
        else {"client_secret": pipeline.secret, "include_client_id": True}
    )
    session.fetch_token(f"{url}/oauth/token", **given)
    assert session.get(f"{url}/api/v1/me").json()["subject"] == f"service:{pipeline.id}"
    wrong = OAuth2Session(client=BackendApplicationClient(client_id=pipeline.id))
    with pytest.raises(InvalidClientError):
        wrong.fetch_token(f"{url}/oauth/token", auth=HTTPBasicAuth(pipeline.id, "wrong%+secret"))


def test_authlib_signs_a_command_line_in_and_out(line: CommandLine) -> None:
    url = line.browser.portal
    with AuthlibSession(
        "guestkey-cli", redirect_uri=CALLBACK, code_challenge_method="S256", token_endpoint_auth_method="none"
    ) as session:
        verifier = secrets.token_urlsafe(48)
        address, _ = session.create_authorization_url(f"{url}/oauth/authorize", code_verifier=verifier)
        token = session.fetch_token(
            f"{url}/oauth/token", authorization_response=allowed(line, address), code_verifier=verifier
        )
        assert session.get(f"{url}/api/v1/me").json()["id"] == line.signed.id
        assert session.revoke_token(f"{url}/oauth/revoke", token=token["access_token"]).status_code == 200
    assert line.me(token["access_token"]).status_code == 401


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_authlib_gets_and_introspects_a_services_token(pipeline: Program, guard: Program, method: str) -> None:
    url = str(pipeline.http.base_url).rstrip("/")
    with AuthlibSession(pipeline.id, pipeline.secret, token_endpoint_auth_method=method) as session:
        token = session.fetch_token(
            f"{url}/oauth/token", grant_type="client_credentials", resource=pipeline.resource, scope="read"
        )
    with AuthlibSession(guard.id, guard.secret, token_endpoint_auth_method=method) as asking:
        said = asking.introspect_token(f"{url}/oauth/introspect", token=token["access_token"]).json()
    assert said["active"] and said["scope"] == token["scope"] == "read slice:deidentified"


def test_authlib_gets_an_error_for_an_unsupported_method(pipeline: Program, http: httpx.Client) -> None:
    """`client_secret_jwt`, with which Authlib signs an assertion."""
    sent = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "header.claims.signature",
    }
    answer = http.post("/oauth/token", data=sent)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert "not served" in answer.json()["error_description"]
    assert pipeline.token().status_code == 200


def test_openapi_describes_forms_answers_and_errors(http: httpx.Client) -> None:
    described = http.get("/openapi.json").json()
    errors = set(described["components"]["schemas"]["OAuthError"]["properties"]["error"]["enum"])
    for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
        operation = described["paths"][path]["post"]
        form = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
        assert form["required"] and form["properties"].keys() >= set(form["required"])
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
        answer = http.post(path)
        assert str(answer.status_code) in operation["responses"] and answer.json()["error"] in errors
    assert {item["name"] for item in described["paths"]["/oauth/authorize"]["get"]["parameters"]} >= {"state"}
