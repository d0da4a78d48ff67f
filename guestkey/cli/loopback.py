"""Signing in through the browser: authorization code with PKCE to a loopback address (RFC 8252, RFC 7636, RFC 9207).

Where the browser runs on another computer, the address it ends on can be pasted instead.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from guestkey.cli import browsers
from guestkey.cli.api import Api
from guestkey.cli.faults import Code, Fault

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
CLIENT_ID = "guestkey-cli"
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Guestkey</title>
<h1>Go back to the terminal</h1><p>The command line has what it needs. You can close this page.</p></html>"""


@dataclass(frozen=True, slots=True)
class _Endpoints:
    issuer: str
    authorize: str
    token: str


def sign_in(api: Api, say: Callable[[str], None], *, open_browser: bool, paste: bool, seconds: float) -> str:
    """Sign in and return the access token.

    Args:
        open_browser: try to open one; the address is printed in any case.
        paste: also read a pasted address from standard input.
        seconds: how long to wait for the browser to come back.

    Raises:
        Fault: refused, forged, or not finished in time.
    """
    endpoints = _endpoints(api)
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    with _Landing(state, say) as landing:
        address = _authorize_address(endpoints, landing.redirect_uri, verifier, state)
        say(f"Sign in here:\n\n  {address}\n\nThe page shows this code: {_short_code(_challenge(verifier))}\n")
        if paste:
            say("Browser on another computer? Paste the address it ends on, and press Enter.")
        if open_browser:
            browsers.try_open(address)
        answer = landing.wait(seconds, paste=paste)
    code = _code_in(answer, endpoints)
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": landing.redirect_uri,
        "client_id": CLIENT_ID,
        "code_verifier": verifier,
    }
    token = api.form(endpoints.token, fields).get("access_token")
    if not isinstance(token, str) or not token:
        raise Fault(Code.FAULT, "The server gave no token.", next_step="guestkey login")
    return token


def revoke(api: Api, token: str) -> None:
    """End a token on the server (RFC 7009)."""
    api.form("/oauth/revoke", {"token": token, "client_id": CLIENT_ID})


class _Landing:
    """Where the browser lands: one address on this computer that believes only answers with our state."""

    def __init__(self, state: str, say: Callable[[str], None]) -> None:
        self._state = state
        self._say = say
        self._answer: dict[str, list[str]] | None = None
        self._server = HTTPServer(("127.0.0.1", 0), _handler(self._offer))
        self.redirect_uri = f"http://127.0.0.1:{self._server.server_port}/callback"

    def __enter__(self) -> _Landing:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def wait(self, seconds: float, *, paste: bool) -> dict[str, list[str]]:
        """The query of the first answer that carries our state."""
        end = time.monotonic() + seconds
        sources: list[Any] = [self._server]
        if paste and sys.platform != "win32":
            sources.append(sys.stdin)
        while self._answer is None:
            left = end - time.monotonic()
            if left <= 0:
                raise Fault(Code.SIGN_IN, "The sign-in was not finished in time.", next_step="guestkey login")
            for ready in select.select(sources, [], [], left)[0]:
                if ready is self._server:
                    self._server.handle_request()
                elif not self._pasted(sys.stdin.readline()):
                    sources.remove(sys.stdin)
        return self._answer

    def _pasted(self, line: str) -> bool:
        """Take a pasted address. False: standard input has ended."""
        if line.strip() and not self._offer(urlsplit(line.strip()).query):
            self._say("That address does not belong to this sign-in.")
        return bool(line)

    def _offer(self, query: str) -> bool:
        answer = parse_qs(query, keep_blank_values=True)
        ours = hmac.compare_digest(answer.get("state", [""])[0].encode(), self._state.encode())
        if ours and self._answer is None:
            self._answer = answer
        return ours


def _handler(offer: Callable[[str], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            ours = address.path == "/callback" and offer(address.query)
            page = _PAGE if ours else b"Not found\n"
            self.send_response(200 if ours else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8" if ours else "text/plain")
            self.send_header("Content-Length", str(len(page)))
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            """Say nothing: the address holds the code."""

    return Handler


def _endpoints(api: Api) -> _Endpoints:
    found = api.document("/.well-known/oauth-authorization-server")
    issuer, authorize, token = (
        str(found.get(key, "")) for key in ("issuer", "authorization_endpoint", "token_endpoint")
    )
    if issuer.rstrip("/") != api.url:
        raise Fault(
            Code.FAULT,
            f"{api.url} says that its issuer is {issuer or 'missing'}.",
            why="A code must be sent only to the server that was signed in to.",
            next_step=f"guestkey login {issuer}" if issuer else "Check the address.",
        )
    if not all(address.startswith(f"{api.url}/") for address in (authorize, token)):
        raise Fault(Code.FAULT, f"{api.url} sends the sign-in to another server.", next_step="Tell its operator.")
    return _Endpoints(issuer, authorize, token)


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _short_code(challenge: str) -> str:
    """What the page shows, too, to be compared by eye; made as `broker.identity.secret_tokens` makes it there."""
    number, letters = int.from_bytes(hashlib.sha256(challenge.encode()).digest(), "big"), ""
    for _ in range(8):
        number, at = divmod(number, len(_LETTERS))
        letters += _LETTERS[at]
    return f"{letters[:4]}-{letters[4:]}"


def _authorize_address(endpoints: _Endpoints, redirect_uri: str, verifier: str, state: str) -> str:
    query = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": redirect_uri,
        "code_challenge": _challenge(verifier),
        "code_challenge_method": "S256",
        "state": state,
    }
    return f"{endpoints.authorize}?{urlencode(query)}"


def _code_in(answer: dict[str, list[str]], endpoints: _Endpoints) -> str:
    if any(len(values) != 1 for values in answer.values()):
        raise Fault(Code.SIGN_IN, "The answer contains a parameter twice; it was not used.", next_step="guestkey login")
    if answer.get("iss", [""])[0] != endpoints.issuer:
        raise Fault(Code.SIGN_IN, "The answer came from another server.", next_step="guestkey login")
    if "error" in answer:
        why = answer.get("error_description", answer["error"])[0]
        raise Fault(Code.SIGN_IN, "The sign-in was refused.", why=why, next_step="guestkey login")
    code = answer.get("code", [""])[0]
    if not code:
        raise Fault(Code.SIGN_IN, "The answer contains no code.", next_step="guestkey login")
    return code
