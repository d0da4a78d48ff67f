"""A small OIDC provider with real keys over real HTTP, honest until a test tells it to misbehave."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

Claims = dict[str, Any]
Mint = Callable[["Provider", Claims], Any]


# Status, headers, body: whole, or piece by piece, as slowly as they come; a status of 0: pieces and nothing else.
Answer = tuple[int, Mapping[str, str], bytes | Iterable[bytes]]


class Provider:
    """The provider. `mint` makes the ID token of the claims; `answers` replaces whole answers by path.

    `userinfo`: what UserInfo says of a person, from the claims of the ID token as it would be.
    """

    def __init__(self) -> None:
        self.client_id, self.client_secret = "guestkey", secrets.token_urlsafe(16)
        self.key = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"}, private=True)
        self.keys: list[Any] = [self.key]
        self.metadata: dict[str, Any] = {}
        self.mint: Mint = lambda provider, claims: provider.sign(claims)
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.asked: list[str] = []
        # What it offers everybody, and what it takes from this client if that is less.
        self.auth_methods, self.takes = ["client_secret_basic"], list[str]()
        # Many do not: LemonLDAP::NG for one.
        self.decodes_basic = True
        self.userinfo: Callable[[Claims], Any] = dict
        self._tokens: dict[str, Claims] = {}
        self._codes: dict[str, dict[str, Any]] = {}
        self._server = _at_a_new_port(_handler(self))
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def approve(self, url: str, subject: str = "ada", **changes: Any) -> str:
        """Somebody signs in here: the address their browser is sent back to.

        Args:
            url: where the broker sent the browser.
            changes: claims to set; None leaves one out.
        """
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256" and asked["max_age"]
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "auth_time": now - 5,
            "nonce": asked["nonce"],
            "name": "Ada Guest",
            "email": "ada@example.org",
            "email_verified": True,
        }
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        code = secrets.token_urlsafe(16)
        self._codes[code] = {"claims": claims, "challenge": asked["code_challenge"], "uri": asked["redirect_uri"]}
        answer = {"code": code, "state": asked["state"]}
        if self.metadata.get("authorization_response_iss_parameter_supported"):
            answer["iss"] = self.issuer
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def sign(self, claims: Claims, header: Mapping[str, Any] | None = None, key: Any = None) -> str:
        """A compact JWS of the claims by a key of ours, with more in the header if wanted."""
        key = key or self.key
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        protected = {"alg": algorithm, "kid": key.kid, **(header or {})}
        made = protected["alg"] if str(protected["alg"]) in jws.JWSRegistry.algorithms else algorithm
        return join(protected, claims, lambda text: signature(text, key, made))

    def token_answer(self, form: Mapping[str, str], authorization: str) -> tuple[int, Any]:
        """The token endpoint, as strict as an honest one."""
        method = "client_secret_basic" if authorization else "client_secret_post"
        # As RFC 6749 section 2.3.1 has it: each form-encoded, then the pair in base64.
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        read = unquote_plus if self.decodes_basic else str
        id_and_secret = (read(given[0]), read(given[2]))
        if not authorization:
            id_and_secret = (form.get("client_id", ""), form.get("client_secret", ""))
        if id_and_secret != (self.client_id, self.client_secret) or method not in (self.takes or self.auth_methods):
            return 401, {"error": "invalid_client"}
        kept = self._codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if not kept or kept["challenge"] != challenge.rstrip(b"=").decode() or kept["uri"] != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        answer = {"access_token": secrets.token_urlsafe(8), "token_type": "Bearer"}
        self._tokens[f"Bearer {answer['access_token']}"] = kept["claims"]
        token = self.mint(self, kept["claims"])
        return 200, answer | ({"id_token": token} if token is not None else {})

    def document(self, path: str, authorization: str = "") -> tuple[int, Any]:
        """What is to be read here."""
        if path == "/userinfo" and authorization in self._tokens:
            return 200, self.userinfo(self._tokens[authorization])
        if path == "/.well-known/openid-configuration":
            return 200, self.discovery()
        if path == "/keys":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        return 404, {}

    def discovery(self) -> dict[str, Any]:
        """The metadata document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "HS256", "none"],
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "token_endpoint_auth_methods_supported": self.auth_methods,
        } | self.metadata


# An issuer is known by its port, and what earlier tests bound to it stays in the records.
_PORTS: set[int] = set()


def _at_a_new_port(handler: type[BaseHTTPRequestHandler]) -> _Server:
    """A server at a port that no provider of this test run had before."""
    while True:
        server = _Server(("127.0.0.1", 0), handler)
        if server.server_port not in _PORTS:
            _PORTS.add(server.server_port)
            return server
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that gave up is what some tests want."""


def join(header: Mapping[str, Any], claims: Any, sign: Callable[[bytes], bytes]) -> str:
    """A compact token of any header and claims, however wrong."""
    text = b".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return (text + b"." + encoded(sign(text))).decode()


def encoded(raw: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def rsa_key(kid: str = "rsa-1") -> Any:
    """An RSA key of 2048 bits."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}, private=True)


def signature(text: bytes, key: Any, algorithm: str) -> bytes:
    """The signature of a text."""
    model = jws.JWSRegistry.algorithms[algorithm]
    return bytes(model.sign(text, key))


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            self._answer(path, lambda: provider.document(path, self.headers.get("authorization", "")))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._answer(self.path, lambda: provider.token_answer(form, self.headers.get("authorization", "")))

        def _answer(self, path: str, honest: Callable[[], tuple[int, Any]]) -> None:
            provider.asked.append(path)
            if path in provider.answers:
                self._send(*provider.answers[path]())
                return
            status, body = honest()
            self._send(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

        def _send(self, status: int, headers: Mapping[str, str], body: bytes | Iterable[bytes]) -> None:
            length = {"Content-Length": str(len(body))} if isinstance(body, bytes) else {}
            if status:
                self.send_response(status)
                for name, value in (length | dict(headers)).items():
                    self.send_header(name, value)
                self.end_headers()
            for piece in [body] if isinstance(body, bytes) else body:
                self.wfile.write(piece)
                self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
