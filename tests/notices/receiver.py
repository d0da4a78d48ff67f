"""A receiver of webhooks over real TLS: it keeps what arrives, and misbehaves as told."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


class Receiver:
    """`answers`: the statuses of the next answers (then 200); `hang`: it accepts and says nothing."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca_file = folder / "receiver-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.arrived: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.hang = threading.Event()
        self._leave = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """The standard library's hook."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if outer.hang.is_set():
                    outer._leave.wait(10)
                    return
                outer.arrived.append(({name.lower(): value for name, value in self.headers.items()}, body))
                status = outer.answers.pop(0) if outer.answers else 200
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", f"https://localhost:{outer.port}/elsewhere")
                self.end_headers()
                self.wfile.write(b"x" * 100)

            def do_GET(self) -> None:
                """Where a followed redirect would arrive."""
                outer.arrived.append(({}, b"a redirect was followed"))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that hangs up is nothing to report."""

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """Where it listens, with something secret in the path."""
        return f"https://localhost:{self.port}/hook/path-canary?key=query-canary"

    def start(self) -> None:
        """Listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._leave.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def clear(self) -> None:
        """Behave again, and forget."""
        self.arrived.clear()
        self.answers.clear()
        self.hang.clear()
