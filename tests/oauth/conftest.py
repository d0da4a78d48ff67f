"""A real replica, programs that speak OAuth to it, and a browser that is signed in."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from broker.base.settings import Settings
from broker.identity import sessions
from broker.identity.http import SESSION_COOKIE
from broker.models import Dataset, Grant, Person
from broker.runtime.parts import Parts
from examples.demo.browser import Browser
from tests.support.world import Signed, World
from tests.web.conftest import Replica

CALLBACK = "http://127.0.0.1:49152/callback"


@pytest.fixture(scope="session")
def replica(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """The replica the programs speak to."""
    running = Replica(settings, parts)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def http(replica: Replica) -> Iterator[httpx.Client]:
    """A program without any credential of its own."""
    with httpx.Client(base_url=replica.url, timeout=20, trust_env=False) as client:
        yield client


class CommandLine:
    """One sign-in of a command line: what it asks, the person's browser, and the exchange. Any of it can be bent."""

    def __init__(self, http: httpx.Client, browser: Browser, signed: Signed) -> None:
        self.http, self.browser, self.signed = http, browser, signed
        self.verifier, self.state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        self.asked = {
            "response_type": "code",
            "client_id": "guestkey-cli",
            "redirect_uri": CALLBACK,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "state": self.state,
        }

    def address(self, **changes: str | None) -> str:
        """Where the browser is sent; None leaves a parameter out."""
        asked = {name: value for name, value in (self.asked | changes).items() if value is not None}
        return f"/oauth/authorize?{httpx.QueryParams(asked)}"

    def allow(self) -> dict[str, str]:
        """Say yes in the browser; returns the parameters that the page's link hands over."""
        page = self.browser.submit(self.browser.open(self.address()))
        return parameters_of(self.browser.link(page, "hand-over"))

    def exchange(self, code: str, **changes: str | None) -> httpx.Response:
        """Ask for the token; None leaves a parameter out."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "client_id": "guestkey-cli",
            "code_verifier": self.verifier,
        }
        sent = {name: value for name, value in (fields | changes).items() if value is not None}
        return self.http.post("/oauth/token", data=sent)

    def me(self, token: str) -> httpx.Response:
        """Use a token."""
        return self.http.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def line(world: World, replica: Replica, http: httpx.Client) -> CommandLine:
    """A vendor's engineer who wants to sign a command line in; the browser is signed in, without a second factor."""
    signed = world.person(world.vendor())
    return CommandLine(http, signed_in(world, replica, signed), signed)


def signed_in(world: World, replica: Replica, signed: Signed, factor_at: datetime | None = None) -> Browser:
    """A browser with a session of somebody."""
    browser = Browser(replica.url)
    with world.database.transaction() as tx:
        person = tx.get_one(Person, signed.id)
        browser.cookies[SESSION_COOKIE] = sessions.start(
            tx, person, source_id=person.source_id, lifetime=3600, now=world.now(), factor_at=factor_at
        )
    return browser


def parameters_of(link: str) -> dict[str, str]:
    """The query of a link to the command line's own address, each parameter once."""
    address = urlsplit(link)
    assert f"{address.scheme}://{address.netloc}{address.path}" == CALLBACK
    found = parse_qs(address.query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


@dataclass(frozen=True)
class Program:
    """A service as its operator runs it: id and secret, and where a grant leads it."""

    http: httpx.Client
    signed_in: Signed
    secret: str
    dataset: Dataset | None = None
    grant: Grant | None = None

    @property
    def id(self) -> str:
        """The service's id, which is its client id."""
        return self.signed_in.id

    @property
    def resource(self) -> str:
        """What names the program's dataset."""
        assert self.dataset is not None
        return f"{str(self.http.base_url).rstrip('/')}/datasets/{self.dataset.slug}"

    def post(self, path: str, **fields: str) -> httpx.Response:
        """A form, authenticated by HTTP Basic."""
        return self.http.post(path, data=fields, auth=(self.id, self.secret))

    @property
    def headers(self) -> dict[str, str]:
        """An Authorization header with an API token fresh from the server."""
        return {"Authorization": f"Bearer {self.token().json()['access_token']}"}

    def token(self, **fields: str) -> httpx.Response:
        """Ask for a token."""
        return self.post("/oauth/token", grant_type="client_credentials", **fields)

    def signed(self, **fields: str) -> dict[str, Any]:
        """A signed token for the program's dataset, with what is said beside it."""
        answer = self.token(resource=self.resource, **fields)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def introspect(self, token: str) -> dict[str, Any]:
        """What is said about a token."""
        answer = self.post("/oauth/introspect", token=token)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def guard(world: World, http: httpx.Client) -> Program:
    """A service of the organisation: it guards data and asks about tokens."""
    return make_program(world, http, world.service())


@pytest.fixture
def pipeline(world: World, http: httpx.Client) -> Program:
    """A vendor's service with a grant on a dataset."""
    vendor = world.vendor()
    service, dataset = world.service(vendor), world.dataset(vendor)
    return make_program(world, http, service, dataset, world.grant(dataset, service, "pipeline"))


def make_program(
    world: World, http: httpx.Client, service: Signed, dataset: Dataset | None = None, grant: Grant | None = None
) -> Program:
    """Give a service a secret through the API, as two admins do."""
    answer = rotated_secret(world, http, service.id)
    assert answer.status_code == 200, answer.text
    return Program(http, service, str(answer.json()["client_secret"]), dataset, grant)


def rotated_secret(world: World, http: httpx.Client, service_id: str) -> httpx.Response:
    """The answer that holds a service's new secret; where the service holds a grant, a second admin agreed first."""
    first, second = (world.person(roles=("admin",)) for _ in range(2))
    path = f"/api/v1/services/{service_id}/rotate-secret"
    answer = http.post(path, headers=first.headers)
    if answer.status_code != 202:
        return answer
    agreed = http.post(f"/api/v1/proposals/{answer.json()['id']}/approve", headers=second.headers)
    assert agreed.status_code == 200, agreed.text
    return http.post(path, headers=first.headers)
