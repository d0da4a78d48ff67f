"""A browser without a window: follows redirects, keeps cookies, fills in forms, signs in at the example provider.

For the demonstration and the tests. It goes where the broker and the real provider send it and adds nothing.
"""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import requests

_PROVIDER_PAGE = "/ui/vault/identity/oidc/"
_PROVIDER_API = "/v1/identity/oidc/"


class Browser:
    """One person's browser; account and password are those at the example provider."""

    def __init__(self, portal: str, username: str = "", password: str = "") -> None:
        self.portal = portal
        self.cookies: dict[str, str] = {}
        self._username, self._password = username, password

    def open(self, address: str) -> requests.Response:
        """Go to an address and wherever it leads; at the provider's page, sign in with the password."""
        for _ in range(12):
            address = urljoin(f"{self.portal}/", address)
            if _PROVIDER_PAGE in address:
                address = self._sign_in_at_provider(address)
            answer = self._send("GET", address)
            if not answer.is_redirect:
                return answer
            address = urljoin(address, answer.headers["Location"])
        raise RuntimeError(f"Too many redirects, the last to {urlsplit(address).path}")

    def submit(self, page: requests.Response, **changes: str) -> requests.Response:
        """Send the main form of a page with its hidden fields."""
        # The frame around every page has a search and a way out.
        forms = [form for form in _Page.read(page.text).forms if form.sends and form.action != "/sign-out"]
        if not forms:
            raise RuntimeError(f"{urlsplit(page.url).path} ({page.status_code}) has no form to send")
        form = forms[0]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        address = urljoin(page.url, form.action)
        answer = self._send("POST", address, data=urlencode(form.fields | changes), headers=headers)
        return self.open(urljoin(address, answer.headers["Location"])) if answer.is_redirect else answer

    def sign_in(self) -> requests.Response:
        """Sign in by the first way that the sign-in page offers."""
        way = next(link for link in _Page.read(self.open("/sign-in").text).addresses if link.startswith("/sign-in/"))
        return self.open(way)

    def link(self, page: requests.Response, id_: str) -> str:
        """Where a link of a page leads."""
        return _Page.read(page.text).links[id_]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the JSON API as a script of the portal would, with the session's CSRF token."""
        headers = {"Accept": "application/json"}
        if method != "GET":
            headers["X-CSRF-Token"] = str(self.api("GET", "/me")["csrf_token"])
        answer = self._send(method, f"{self.portal}/api/v1{path}", json=body, headers=headers)
        return answer.json() if answer.content else {}

    def _send(self, method: str, address: str, **options: Any) -> requests.Response:
        headers = options.pop("headers", {})
        if address.startswith(f"{self.portal}/"):
            # By hand: browsers send Secure cookies to localhost without TLS, Python's clients do not.
            headers = {
                "Accept": "text/html",
                **headers,
                "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()),
            }
        answer = requests.request(method, address, headers=headers, allow_redirects=False, timeout=20, **options)
        if address.startswith(f"{self.portal}/"):
            self.cookies.update({cookie.name: cookie.value or "" for cookie in answer.cookies})
        return answer

    def _sign_in_at_provider(self, address: str) -> str:
        """Do what the provider's page does: log in, ask for a code, go back with it."""
        parts = urlsplit(address)
        origin = f"{parts.scheme}://{parts.netloc}"
        login = requests.post(
            f"{origin}/v1/auth/userpass/login/{self._username}", json={"password": self._password}, timeout=20
        )
        login.raise_for_status()
        answer = requests.get(
            f"{origin}{parts.path.replace(_PROVIDER_PAGE, _PROVIDER_API)}?{parts.query}",
            headers={"X-Vault-Token": login.json()["auth"]["client_token"]},
            timeout=20,
        )
        answer.raise_for_status()
        back = parse_qs(parts.query)["redirect_uri"][0]
        return f"{back}?{urlencode({key: answer.json()[key] for key in ('code', 'state')})}"


class _Form:
    def __init__(self, action: str, *, sends: bool) -> None:
        self.action, self.sends = action, sends
        self.fields: dict[str, str] = {}


class _Page(HTMLParser):
    """The forms and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self.links: dict[str, str] = {}
        self.addresses: list[str] = []

    @classmethod
    def read(cls, text: str) -> _Page:
        page = cls()
        page.feed(text)
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(_Form(given.get("action", ""), sends=given.get("method") == "post"))
        elif tag == "input" and self.forms and "name" in given:
            self.forms[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "a":
            self.addresses.append(given.get("href", ""))
            self.links[given.get("id", "")] = given.get("href", "")
