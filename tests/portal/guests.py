"""Somebody at a browser: signs in at the real login page, uses an authenticator, and looks closely at each screen."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

import html5lib
import pyotp
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect

from tests.portal import pictures
from tests.portal.house import House, Someone

STANDARDS: dict[str, object] = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
# The dark look differs in colours only (guestkey.css), so only rules about colours are checked again.
COLOURS: dict[str, object] = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
# A narrow window holds the same elements in another layout, so only rules about layout are checked again.
LAYOUT: dict[str, object] = {
    "type": "rule",
    "values": ["aria-hidden-focus", "color-contrast", "scrollable-region-focusable", "target-size"],
}
LOOKS: tuple[tuple[Literal["light", "dark"], int, dict[str, object]], ...] = (
    ("light", 1280, STANDARDS),
    ("dark", 1280, COLOURS),
    ("light", 320, LAYOUT),
    ("dark", 320, {}),
)
_VIOLATIONS = "runOnly => axe.run({runOnly, resultTypes: ['violations']}).then(results => results.violations)"
_IDS_TWICE = """() => [...document.querySelectorAll("[id]")].map((element) => element.id)
  .filter((id, at, all) => all.indexOf(id) !== at)"""
_AXE_SCRIPT = Axe().axe_script
_SCREENS = os.environ.get("GUESTKEY_SCREENS")


class Guest:
    """One person at one browser of their own."""

    def __init__(self, house: House, chromium: Browser, someone: Someone, *, scripts: bool = True) -> None:
        self.house, self.someone = house, someone
        self.context = chromium.new_context(
            base_url=house.url,
            viewport={"width": 1280, "height": 900},
            java_script_enabled=scripts,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.set_default_timeout(30_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.secret = ""
        self._document: Response | None = None
        self._last_code = ""
        self.page.on("console", self._note_fault)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("response", self._note)
        self.page.on("request", self._stay)

    def close(self) -> None:
        """Close the browser's window."""
        self.context.close()

    def arrive(self, factor_age: int | None) -> None:
        """Be signed in, without the walk through the login page."""
        cookie = self.house.session(self.someone, factor_age)
        # Browsers take a host's secure cookie from http://localhost, but the tool that plants one insists on https.
        url = self.house.url.replace("http:", "https:")
        self.context.add_cookies(
            [{"name": "__Host-guestkey", "value": cookie, "url": url, "secure": True, "httpOnly": True}]
        )

    def open(self, path: str) -> Page:
        """Open a page of the portal."""
        self.page.goto(urljoin(self.house.url, path))
        return self.page

    def fill(self, label: str, text: str) -> None:
        """Type into the field of that label."""
        self.page.get_by_label(label, exact=True).fill(text)

    def choose(self, label: str, value: str) -> None:
        """Choose the option of that value or text."""
        self.page.get_by_label(label, exact=True).select_option(value)

    def press(self, name: str) -> None:
        """Press the one button of that name, and wait for the page it leads to."""
        with self.page.expect_navigation():
            self.page.get_by_role("button", name=name, exact=True).click()

    def follow(self, name: str) -> None:
        """Follow the first link of that name."""
        with self.page.expect_navigation():
            self.page.get_by_role("link", name=name).first.click()

    def sign_in(self, path: str, *, again: bool = False) -> None:
        """Follow a way to the provider and sign in at OpenBao's own page, which remembers who was there before."""
        page = self.page
        page.goto(urljoin(self.house.url, path), wait_until="commit")
        if not again:
            page.get_by_label("Username").fill(self.someone.username)
            page.get_by_label("Password", exact=True).fill(self.someone.password)
            page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{self.house.url}/**", wait_until="load")

    def add_authenticator(self) -> None:
        """Plug in a virtual authenticator that makes and uses passkeys."""
        devtools = self.context.new_cdp_session(self.page)
        devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})

    def code(self) -> str:
        """The next code of the person's app, one they have not used: of the step to come, which may be used already."""
        end = time.monotonic() + 40
        while (code := pyotp.TOTP(self.secret).at(int(time.time()) + 30)) == self._last_code:
            assert time.monotonic() < end
            time.sleep(0.5)
        self._last_code = code
        return f"{code[:3]} {code[3:]}"

    def look(self, name: str) -> None:
        """Look closely at the screen: valid HTML, accessible in every look, nothing to scroll to sideways."""
        title = self.page.title()
        assert title.endswith("– Guestkey") and self.page.locator("h1").count() == 1, title
        source = self._source()
        html5lib.HTMLParser(strict=True).parse(source)
        assert "http-equiv" not in source, "a page that reloads by itself takes what one is reading away"
        twice = self.page.evaluate(_IDS_TWICE)
        assert not twice, f"{name} has these ids twice: {twice}"
        self.page.evaluate(_AXE_SCRIPT)
        for scheme, width, rules in LOOKS:
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size({"width": width, "height": 900})
            found = self.page.evaluate(_VIOLATIONS, rules) if rules else []
            violations = [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found]
            assert not violations, (name, scheme, width, violations)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} wide at {width}"
            if name in pictures.SMALL and (scheme, width) == ("dark", 320):
                pictures.check(self.page, f"{name}-small")
            if _SCREENS and (scheme == "light") == (width == 1280):
                self.page.screenshot(path=Path(_SCREENS) / f"{name}-{width}.png", full_page=True)
        self.page.emulate_media(color_scheme="light")
        self.page.set_viewport_size({"width": 1280, "height": 900})
        assert not self.faults, self.faults
        if name in pictures.APPROVED:
            pictures.check(self.page, name)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that came with the page."""
        assert self._document is not None
        return self._document.headers

    def says(self, text: str) -> None:
        """The page says this, now or in a moment."""
        expect(self.page.locator("main")).to_contain_text(text)

    def _note_fault(self, message: ConsoleMessage) -> None:
        # That a page says no is no fault of the page.
        refusal = message.text.startswith("Failed to load resource") and message.location["url"] == self.page.url
        if message.type == "error" and not refusal:
            self.faults.append(message.text)

    def _stay(self, request: Request) -> None:
        # Only signing in leads elsewhere, and that is a page of its own; no page fetches anything from there.
        here = self.page.url.startswith(self.house.url) and not request.is_navigation_request()
        if here and not request.url.startswith((f"{self.house.url}/", "data:", "blob:")):
            self.faults.append(f"asked elsewhere: {request.url}")

    def _note(self, response: Response) -> None:
        if response.request.is_navigation_request() and response.status not in range(300, 400):
            self._document = response

    def _source(self) -> str:
        assert self._document is not None
        return self._document.text()
