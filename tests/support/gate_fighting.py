"""A service behind a gateway that never comes to an end, and guests who cling to what they have open there."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.gateway import ask

HEAD = b"Host: records.example\r\n"
# As the server sees a connection whose other side is gone, or has closed without a word.
GONE = (OSError, ssl.SSLError)


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self._echo()
        elif self.path == "/endless":
            self._drip()
        else:
            self._say(b"served")

    def do_POST(self) -> None:
        self._say(b"stored")

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "upgrade")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(*GONE):
            while said := self.connection.recv(100):
                self.connection.sendall(said)

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(*GONE):
            while True:
                self.wfile.write(b"x" * 100)
                time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def service() -> Iterator[int]:
    """The port of a service with an endless download at /endless and an echo behind `Upgrade: websocket`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _asking(connection: ssl.SSLSocket) -> None:
    while ask(connection)[0] == 200:
        time.sleep(0.05)


def _downloading(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET /endless HTTP/1.1\r\n" + HEAD + b"\r\n")
    while connection.recv(1000):
        continue


def _uploading(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1\r\nx\r\n")
        time.sleep(0.1)


def _heading(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD)
    while True:
        connection.sendall(b"X-More: 1\r\n")
        time.sleep(0.1)


def _echoing(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\n" + HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b" 101 " in connection.recv(1000)
    said = b"on"
    while said:
        connection.sendall(said)
        said = connection.recv(100)
        time.sleep(0.05)


def _silent(connection: ssl.SSLSocket) -> None:
    while connection.recv(1000):
        continue


CLINGING: dict[str, Callable[[ssl.SSLSocket], None]] = {
    "requests without a pause": _asking,
    "a download without an end": _downloading,
    "an upload without an end": _uploading,
    "a head without an end": _heading,
    "a WebSocket": _echoing,
    "nothing at all": _silent,
}


class Clinging:
    """A connection that somebody does something on, in a thread, until it is closed."""

    def __init__(self, connection: ssl.SSLSocket, what: str) -> None:
        self.what, self._connection = what, connection
        self._thread = threading.Thread(target=self._cling, daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def over(self, end: float) -> bool:
        """Whether it is closed before that moment of the monotonic clock."""
        self._thread.join(max(0.0, end - time.monotonic()))
        return not self._thread.is_alive()

    def close(self) -> None:
        """Let go."""
        with contextlib.suppress(*GONE):
            self._connection.shutdown(2)
        self._thread.join(30)
        self._connection.close()

    def _cling(self) -> None:
        with contextlib.suppress(*GONE):
            CLINGING[self.what](self._connection)
