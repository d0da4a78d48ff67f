"""A browser without a screen: keeps cookies, follows nothing by itself, sends what a page's script would."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import httpx

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Browser:
    """One browser at one installation. Cookies are kept by hand: Python's clients keep `Secure` ones off localhost."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self.url = url
        self._always = dict(headers or {})
        self.cookies: dict[str, str] = {}
        self.csrf = ""
        # Plain HTTP to this machine: reading the system's certificates would be most of a test's time.
        self._client = httpx.Client(base_url=url, timeout=20, follow_redirects=False, trust_env=False, verify=_NO_TLS)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        """One request with the cookies; a changing one also carries the CSRF token."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if method not in ("GET", "HEAD") and self.csrf:
            headers["X-CSRF-Token"] = self.csrf
        headers |= self._always | given.pop("headers", {})
        answer = self._client.request(method, path.removeprefix(self.url), headers=headers, **given)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    def get(self, path: str, **given: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        """POST."""
        return self.request("POST", path, **given)

    def leave(self, path: str) -> str:
        """Follow a link that leads to a provider; returns the provider's address."""
        answer = self.get(path)
        assert answer.status_code == 303, answer.text
        target = str(answer.headers["location"])
        assert urlsplit(target).netloc != urlsplit(self.url).netloc
        return target

    def return_to(self, callback: str) -> httpx.Response:
        """Come back from a provider; a session that came of it is used from now on."""
        answer = self.get(callback)
        if answer.status_code == 303:
            self.csrf = self.api("GET", "/me").json()["csrf_token"] or ""
        return answer

    def api(self, method: str, path: str, body: Any = None, **given: Any) -> httpx.Response:
        """One request to the API."""
        return self.request(method, f"/api/v1{path}", json=body, **given)
