"""A vendor's identity provider that hangs, drips or never ends holds up its own people, and nobody else."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from broker.identity import provider_http, providers
from broker.identity.provider_http import ProviderHttp, ProviderUnusable
from broker.identity.providers import Faults
from broker.web import sign_in
from tests.identity.conftest import BrowserOf, Door
from tests.support.browser import Browser
from tests.support.provider import Answer, Provider
from tests.support.world import World

DISCOVERY = "/.well-known/openid-configuration"
CROWD = 80


@contextmanager
def hanging(provider: Provider, path: str) -> Iterator[threading.Event]:
    """Let a path of the provider answer nothing until the block ends; the event: somebody has asked."""
    asked, over = threading.Event(), threading.Event()

    def hang() -> Answer:
        asked.set()
        over.wait(60)
        return 500, {}, b""

    provider.answers[path] = hang
    try:
        yield asked
    finally:
        over.set()


def _crowd(door: Door, path: str) -> list[int]:
    """What many strangers are answered who go there at once."""
    limits = httpx.Limits(max_connections=CROWD)
    with httpx.Client(base_url=door.house.url, timeout=90, limits=limits) as client, ThreadPoolExecutor(CROWD) as pool:
        return list(pool.map(lambda _: client.get(path).status_code, range(CROWD)))


def test_hanging_provider_does_not_delay_other_sign_ins(
    door: Door, world: World, browser_of: BrowserOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, somebody = door.bind(world.vendor()), door.client(world.person())
    well = Provider()
    well.start()
    try:
        other = door.bind(issuer=well.issuer)
        # Longer than anybody below waits: whoever is answered is so while the provider hangs.
        monkeypatch.setattr(provider_http, "SECONDS", 45.0)
        with ThreadPoolExecutor(1) as beside, hanging(door.provider, DISCOVERY) as asked:
            crowd = beside.submit(_crowd, door, f"/sign-in/{source.id}")
            assert asked.wait(30)
            for _ in range(5):
                assert somebody.api("GET", "/me").status_code == 200
            assert browser_of().get(f"/sign-in/{other.id}").status_code == 303
            assert not crowd.done()
        assert crowd.result() == [503] * CROWD
        assert door.provider.asked.count(DISCOVERY) <= 4
    finally:
        well.stop()


def test_sign_in_continues_after_being_told_to_wait(
    door: Door, browser: Browser, browser_of: BrowserOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = door.bind()
    door.known(source)
    monkeypatch.setattr(sign_in, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(provider_http, "SECONDS", 45.0)
    callback = door.provider.approve(browser.leave(f"/sign-in/{source.id}"))
    crowd = [browser_of() for _ in range(4)]
    ways = [door.provider.approve(one.leave(f"/sign-in/{source.id}"), "eve") for one in crowd]
    with ThreadPoolExecutor(4) as pool, hanging(door.provider, "/token"):
        under_way = [pool.submit(one.get, way, timeout=90) for one, way in zip(crowd, ways, strict=True)]
        while door.provider.asked.count("/token") < 4:
            time.sleep(0.01)
        answer = browser.get(callback)
        assert (answer.status_code, answer.json()["backend"]) == (503, "identity_provider")
        assert int(answer.headers["Retry-After"]) > 0
    assert [one.result().status_code for one in under_way] == [503] * 4
    del door.provider.answers["/token"]
    assert browser.return_to(callback).status_code == 303


def test_provider_failure_is_cached_for_a_while(door: Door, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    source = door.bind()
    door.provider.answers[DISCOVERY] = lambda: (500, {}, b"")
    assert [browser.get(f"/sign-in/{source.id}").status_code for _ in range(5)] == [503] * 5
    assert door.provider.asked.count(DISCOVERY) == 1
    del door.provider.answers[DISCOVERY]
    monkeypatch.setattr(providers, "monotonic", lambda: time.monotonic() + providers.LONGEST_PAUSE)
    assert browser.get(f"/sign-in/{source.id}").status_code == 303


def test_retries_back_off_and_one_request_tries_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tries = 1000.0, 0
    monkeypatch.setattr(providers, "monotonic", lambda: now)
    faults = Faults()

    def fail() -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            # Whoever comes while one tries is told what is known.
            with pytest.raises(ProviderUnusable, match="down"):
                faults.guarded("x", fail)
        raise ProviderUnusable("down")

    tried_at: list[float] = []
    while len(tried_at) < 6:
        before = tries
        with pytest.raises(ProviderUnusable):
            faults.guarded("x", fail)
        if tries > before:
            assert tries == before + 1
            tried_at.append(now)
        now += 0.5
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried_at)]
    assert pauses == sorted(pauses) and len(set(pauses)) > 1 and pauses[-1] <= providers.LONGEST_PAUSE <= 60


def _forever(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece)


def _drip(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece
        time.sleep(0.02)


ENDLESS: dict[str, Callable[[], Answer]] = {
    "a body that drips": lambda: (200, {}, _drip(b" ")),
    "a header that drips": lambda: (0, {}, itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], _drip(b"x"))),
    "headers that drip": lambda: (0, {}, itertools.chain([b"HTTP/1.1 200 OK\r\n"], _drip(b"X: y\r\n"))),
    "a status that drips": lambda: (0, {}, _drip(b"H")),
    "a body that ends never": lambda: (200, {}, _forever(b" " * 16384)),
    "a chunk that ends never": lambda: (200, {"Transfer-Encoding": "chunked"}, _drip(b"0")),
    "a body shorter than it says": lambda: (200, {"Content-Length": "200"}, b"{}"),
    "a huge number": lambda: (200, {}, b"[" + b"9" * 100_000 + b"]"),
    "depth": lambda: (200, {}, b"[" * 100_000),
    "a body that would grow": lambda: (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + b"x" * 100),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_provider_requests_time_out(
    world: World, provider: Provider, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(provider_http, "SECONDS", 1.0)
    provider.answers["/x"] = ENDLESS[what]
    began = time.monotonic()
    with pytest.raises(ProviderUnusable):
        ProviderHttp(world.parts.settings).get_json(f"{provider.issuer}/x")
    # Far less than forever; not less than a busy machine takes.
    assert time.monotonic() - began < 20
