"""What a provider says of itself leads us nowhere inside: addresses are judged as they are connected to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest

from broker.base.settings import Settings
from broker.identity import provider_http
from broker.identity.provider_http import ProviderHttp, ProviderUnusable
from tests.identity.conftest import Door
from tests.support.browser import Browser
from tests.support.provider import Provider
from tests.support.world import World


@pytest.fixture
def strict(world: World) -> Settings:
    """Settings that name one address of this machine, and no more."""
    networks = {"sign_in_networks": [IPv4Network("127.0.0.1/32")]}
    return world.parts.settings.model_copy(update=networks)


@pytest.fixture
def inner() -> Iterator[socket.socket]:
    """A server inside that nobody may reach; it would only have to accept."""
    with socket.create_server(("127.0.0.2", 0)) as server:
        server.settimeout(0)
        yield server


def _reached(server: socket.socket) -> bool:
    try:
        server.accept()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "127.2", "2130706434", "0x7f000002", "[::ffff:127.0.0.2]", "[::1]", "[64:ff9b::7f00:2]"]
)
def test_inner_addresses_are_refused_in_every_spelling(strict: Settings, inner: socket.socket, host: str) -> None:
    with pytest.raises(ProviderUnusable, match="GUESTKEY_SIGN_IN_NETWORKS"):
        ProviderHttp(strict).get_json(f"https://{host}:{inner.getsockname()[1]}/keys")
    assert not _reached(inner)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("169.254.169.254", False), ("10.0.0.1", False), ("fd00:ec2::254", False), ("8.8.8.8", True), ("127.0.0.1", True)],
)
def test_public_and_configured_addresses_are_allowed(strict: Settings, address: str, *, allowed: bool) -> None:
    assert provider_http.is_permitted_address(strict, ip_address(address)) is allowed


@pytest.mark.parametrize("answers", [["127.0.0.1", "127.0.0.2"], ["8.8.8.8", "10.1.1.1"]])
def test_host_with_one_inner_address_is_refused(
    strict: Settings, inner: socket.socket, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in answers]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(ProviderUnusable, match="lies inside"):
        ProviderHttp(strict).get_json(f"https://idp.example:{inner.getsockname()[1]}/keys")
    assert not _reached(inner)


def test_host_is_resolved_once_and_that_address_is_used(
    strict: Settings, provider: Provider, inner: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, *given: Any, **more: Any) -> Any:
        if host != "localhost":
            return real(host, *given, **more)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = provider.issuer.replace("127.0.0.1", "localhost")
    assert ProviderHttp(strict).get_json(f"{url}/keys")["keys"]
    assert asked == ["localhost"]


def _named(door: Door, endpoint: str, inner: socket.socket) -> None:
    door.provider.metadata[endpoint] = f"https://127.0.0.2:{inner.getsockname()[1]}/"


@pytest.fixture
def narrow(door: Door, monkeypatch: pytest.MonkeyPatch) -> Door:
    """The house, whose settings name one address of this machine only."""
    monkeypatch.setattr(door.house.settings, "sign_in_networks", [IPv4Network("127.0.0.1/32")])
    return door


@pytest.mark.parametrize("endpoint", ["token_endpoint", "jwks_uri"])
def test_inner_endpoints_are_not_contacted(narrow: Door, browser: Browser, inner: socket.socket, endpoint: str) -> None:
    _named(narrow, endpoint, inner)
    source = narrow.bind()
    answer = browser.get(narrow.provider.approve(browser.leave(f"/sign-in/{source.id}")))
    assert (answer.status_code, answer.json()["backend"]) == (503, "identity_provider")
    assert "127.0.0.2" not in answer.text and not _reached(inner)


def test_inner_userinfo_is_not_contacted(narrow: Door, browser: Browser, inner: socket.socket) -> None:
    _named(narrow, "userinfo_endpoint", inner)
    source = narrow.bind(required_claims={"hd": "acme"})
    assert narrow.sign_in(browser, source) == 503
    assert not _reached(inner)


def test_inner_provider_needs_the_operators_setting(
    door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door.house.settings, "sign_in_networks", [])
    source = door.bind()
    assert browser.get(f"/sign-in/{source.id}").status_code == 503
    assert door.provider.asked == []


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token", "/userinfo"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(door: Door, browser: Browser, inner: socket.socket, path: str, status: int) -> None:
    to = f"http://127.0.0.1:{inner.getsockname()[1]}/"
    door.provider.answers[path] = lambda: (status, {"Location": to}, json.dumps({"keys": []}).encode())
    source = door.bind(required_claims={"hd": "acme"})
    start = browser.get(f"/sign-in/{source.id}")
    if start.status_code == 303:
        start = browser.get(door.provider.approve(start.headers["location"]))
    assert start.status_code == 503 and not _reached(inner)
