"""The embedded provider is the real OpenBao: its own tokens, through its own endpoints, let people in."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests

from broker.embedded.openbao import MadeAccount, Operator
from broker.identity.sources import new_source_id, wrap_client_secret
from broker.models import SignInSource
from tests.identity.conftest import BrowserOf, Door
from tests.support.world import World


@dataclass(frozen=True)
class Example:
    """OpenBao as provider: a source for one vendor, and an account of its people."""

    address: str
    source: SignInSource
    username: str
    account: MadeAccount

    def answer(self, url: str, password: str | None = None, **changes: str | None) -> str:
        """Log in with the password and let the provider answer; where it sends the browser."""
        login = requests.post(
            f"{self.address}/v1/auth/userpass/login/{self.username}",
            json={"password": password or self.account.password},
            timeout=10,
        )
        login.raise_for_status()
        sent: dict[str, str | None] = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        asked = {name: value for name, value in (sent | changes).items() if value is not None}
        answer = requests.get(
            f"{self.address}/v1/identity/oidc/provider/guestkey/authorize",
            params=asked,
            headers={"X-Vault-Token": login.json()["auth"]["client_token"]},
            timeout=10,
        )
        body = answer.json()
        assert answer.ok, body
        return f"{asked['redirect_uri']}?{urlencode({'code': body['code'], 'state': body['state']})}"


@pytest.fixture
def example(world: World, door: Door) -> Iterator[Example]:
    """One vendor's source at the embedded OpenBao."""
    operator = Operator(world.stack.bao)
    client = operator.make_provider([f"{door.house.url}/sign-in/callback"])
    username, party = f"ada-{secrets.token_hex(4)}", f"party-{secrets.token_hex(4)}"
    account = operator.make_account(username, "Ada Annotator", f"{username}@vendor.example", party)
    source_id = new_source_id()
    source = world.add(
        SignInSource(
            id=source_id,
            name=f"OpenBao {party}",
            issuer=client.issuer,
            client_id=client.client_id,
            wrapped_client_secret=wrap_client_secret(world.parts.vault, source_id, client.client_secret),
            required_claims={"party": party},
            vendor_id=world.vendor().id,
            mfa_values=[],
        )
    )
    yield Example(world.stack.bao.address, source, username, account)


def test_people_join_and_sign_in_through_openbao(example: Example, door: Door, browser_of: BrowserOf) -> None:
    link, browser = door.invite(example.source), browser_of()
    url = browser.leave(f"{link}/sign-in")
    assert "/ui/vault/identity/oidc/provider/guestkey/authorize" in url
    assert browser.return_to(example.answer(url)).status_code == 303
    me = browser.api("GET", "/me").json()
    assert (me["name"], me["vendor"]) == ("Ada Annotator", example.source.vendor_id)
    assert me["email"] == f"{example.username}@vendor.example"
    again = browser_of()
    callback = example.answer(again.leave(f"/sign-in/{example.source.id}"))
    assert again.return_to(callback).status_code == 303
    assert again.api("GET", "/me").json()["id"] == me["id"]


def test_authorization_code_works_once_in_one_browser(example: Example, browser_of: BrowserOf) -> None:
    browser, thief = browser_of(), browser_of()
    callback = example.answer(browser.leave(f"/sign-in/{example.source.id}"))
    assert thief.get(callback).json()["code"] == "sign_in_refused"
    assert browser.get(callback).json()["code"] == "unknown"
    assert browser.get(callback).json()["code"] == "sign_in_refused"


@pytest.mark.parametrize("change", [{"nonce": "other"}, {"code_challenge": "A" * 43}, {"max_age": None}])
def test_tampered_authorization_request_is_refused(
    example: Example, browser_of: BrowserOf, change: dict[str, str | None]
) -> None:
    browser = browser_of()
    callback = example.answer(browser.leave(f"/sign-in/{example.source.id}"), **change)
    assert browser.get(callback).json()["code"] == "sign_in_refused"
