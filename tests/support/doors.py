"""A store that is not well: nobody listens, nobody answers, or what answers is no store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

_ASSUMED = (
    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>B"
    "</SecretAccessKey><SessionToken>C</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>"
    "<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/guest/{name}</Arn></AssumedRoleUser>"
    "</AssumeRoleResult></AssumeRoleResponse>"
)
_LISTED = "<ListBucketResult><Name>{bucket}</Name><KeyCount>0</KeyCount></ListBucketResult>"
_DENIED = "<Error><Code>AccessDenied</Code></Error>"


@contextmanager
def answering(body: bytes, *, status: int = 200, kind: str = "text/xml", cut: int = 0) -> Iterator[str]:
    """A server that gives one answer to everything; with `cut`, it promises so many bytes more than it sends."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) + cut))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as address:
        yield address


@contextmanager
def open_to_all() -> Iterator[str]:
    """A store that takes a session's policy and forgets it: any session may list and read everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            _say(self, 200, _ASSUMED.format(name=sent["RoleSessionName"][0]))

        def do_GET(self) -> None:
            if "Credential=A/" not in self.headers["Authorization"]:
                return _say(self, 403, _DENIED)
            return _say(self, 200, _LISTED.format(bucket=urlsplit(self.path).path.strip("/")))

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as address:
        yield address


@contextmanager
def refusing_to_read() -> Iterator[str]:
    """A store that lists one object under `trials/`, and lets nobody read it."""
    held = "<ListBucketResult><Name>clinic</Name><Contents><Key>trials/0</Key></Contents></ListBucketResult>"

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            _say(self, 200, _ASSUMED.format(name=sent["RoleSessionName"][0]))

        def do_GET(self) -> None:
            inside = parse_qs(urlsplit(self.path).query).get("prefix") == ["trials/"]
            return _say(self, 200, held) if inside else _say(self, 403, _DENIED)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with _serving(Handler) as address:
        yield address


def _say(handler: BaseHTTPRequestHandler, status: int, text: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "text/xml")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text.encode())


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
