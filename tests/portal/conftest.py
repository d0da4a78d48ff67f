"""A house with people in it, and Chromium to look at it. Everything is real: servers, login page, browser.

With `GUESTKEY_SCREENS` set to a folder, every screen that is checked is also saved there as a picture.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from broker.base.settings import Settings
from broker.embedded.stack import Stack
from broker.runtime.parts import Parts, vault_of
from broker.worker.worker import Worker
from tests.portal.guests import Guest
from tests.portal.house import House, Someone
from tests.support.stock import Stock
from tests.support.world import World
from tests.web.conftest import Replica

_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
GuestOf = Callable[..., Guest]


@pytest.fixture(scope="package")
def house(stack: Stack, settings: Settings, parts: Parts, ender: Parts, stock: Stock) -> Iterator[House]:
    """A replica, a worker, and OpenBao as the identity provider, with accounts for everybody."""
    replica = Replica(settings, parts)
    replica.start()
    worker = Worker(ender, vault_of(settings, "setup"))
    thread = threading.Thread(target=worker.run, name="portal-worker")
    thread.start()
    try:
        yield House(World(stack, settings, replica.parts, ender, stock), replica)
    finally:
        worker.stop()
        thread.join(20)
        replica.stop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium, without a window: the shell that never had one costs a third less time."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser")
    executable = next(filter(None, map(shutil.which, names)), None)
    assert executable, "Chromium is not installed"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def guest_of(house: House, chromium: Browser) -> Iterator[GuestOf]:
    """Opens a browser for somebody: `guest_of(someone)`; signed in already unless `signed_in=False`."""
    guests: list[Guest] = []

    def make(someone: Someone, *, signed_in: bool = True, scripts: bool = True, factor_age: int | None = 5) -> Guest:
        guest = Guest(house, chromium, someone, scripts=scripts)
        guests.append(guest)
        if signed_in:
            guest.arrive(factor_age)
        return guest

    yield make
    for guest in guests:
        guest.close()
    house.world.leave()
