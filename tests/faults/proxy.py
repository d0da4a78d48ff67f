"""Proxies on the way to OpenBao and to PostgreSQL that lose, delay, cut short or falsify answers.

Without a fault set they hand everything through. A request a fault strikes has been carried out: only its answer is
bad, which is the harder case.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Answer:
    """What OpenBao answered."""

    status: int
    content_type: str
    body: bytes


class Lost(Exception):
    """The connection ends without an answer."""


class Cut(Exception):
    """The connection ends after this much of the answer's body."""

    def __init__(self, after: int) -> None:
        super().__init__(after)
        self.after = after


Fault = Callable[[Answer], Answer]


def lost(_: Answer) -> Answer:
    """The request arrived; its answer does not."""
    raise Lost


def cut(after: int) -> Fault:
    """The answer breaks off after so many bytes of its body, whatever length was announced."""

    def fault(_: Answer) -> Answer:
        raise Cut(after)

    return fault


def late(seconds: float) -> Fault:
    """The answer comes after so many seconds."""

    def fault(answer: Answer) -> Answer:
        time.sleep(seconds)
        return answer

    return fault


def instead(status: int, content_type: str, body: bytes) -> Fault:
    """Another answer comes in place of the true one."""
    return lambda _: Answer(status, content_type, body)


def without(*keys: str) -> Fault:
    """The true answer, less what lies at the keys one inside the other."""

    def fault(answer: Answer) -> Answer:
        if not answer.body:
            return answer
        whole = json.loads(answer.body)
        inner = whole
        for key in keys[:-1]:
            inner = inner.get(key) or {}
        inner.pop(keys[-1], None)
        return Answer(answer.status, answer.content_type, json.dumps(whole).encode())

    return fault


class HttpProxy:
    """In front of OpenBao, or of an object store.

    `struck` are the paths whose answers were bad, `true` what those answers had been.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._fault: tuple[str, Fault] | None = None
        self.struck: list[str] = []
        self.true: list[Answer] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @contextmanager
    def faulty(self, path: str, fault: Fault) -> Iterator[None]:
        """Let the fault strike every answer about a path that contains this, for as long as the block runs."""
        self.struck.clear()
        self.true.clear()
        self._fault = (path, fault)
        try:
            yield
        finally:
            self._fault = None

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One request, handed through, and what it came to after the fault."""
        connection = http.client.HTTPConnection(*self._target, timeout=30)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            reply = connection.getresponse()
            answer = Answer(reply.status, reply.headers.get("Content-Type", ""), reply.read())
        finally:
            connection.close()
        fault = self._fault
        if fault is not None and fault[0] in path:
            self.struck.append(path)
            self.true.append(answer)
            return fault[1](answer)
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news here."""


def _handler(proxy: HttpProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            try:
                answer = proxy.forward(self.command, self.path, headers, body)
            except (Lost, OSError):
                self.close_connection = True
                return
            except Cut as cut:
                self.answer(Answer(200, "application/json", b"{" + b" " * 4096), cut.after)
                self.close_connection = True
                return
            self.answer(answer, None)

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = handle_any

        def answer(self, answer: Answer, most: int | None) -> None:
            self.send_response(answer.status)
            if answer.content_type:
                self.send_header("Content-Type", answer.content_type)
            if answer.status != http.HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[:most])

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


@dataclass(frozen=True)
class TcpFault:
    """What happens to a connection's answers: how many bytes still pass, how late, and what comes instead."""

    passes: int | None = None
    seconds: float = 0.0
    instead: bytes = b""
    holds: bool = False


def answers_lost() -> TcpFault:
    """The request arrived; the connection ends without an answer."""
    return TcpFault(passes=0)


def answers_cut(after: int) -> TcpFault:
    """The connection ends after so many bytes of the answer."""
    return TcpFault(passes=after)


def answers_late(seconds: float) -> TcpFault:
    """Each piece of an answer comes so many seconds later."""
    return TcpFault(seconds=seconds)


def answers_held() -> TcpFault:
    """No answer comes, and the connection stays open."""
    return TcpFault(holds=True)


def answers_garbled(text: bytes = b"HTTP/1.1 200 OK\r\n\r\n<h1>Welcome</h1>") -> TcpFault:
    """Something else than PostgreSQL answers."""
    return TcpFault(instead=text)


class TcpProxy:
    """In front of PostgreSQL, byte for byte.

    A fault is armed for the moment a client sends certain bytes: from then on that connection's answers are lost,
    late, cut short or garbage. Other connections go on undisturbed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._armed: tuple[bytes, TcpFault, int] | None = None
        self.struck = 0
        threading.Thread(target=self._serve, daemon=True).start()

    @contextmanager
    def faulty(self, when: bytes, fault: TcpFault, *, skip: int = 0) -> Iterator[None]:
        """Let the fault strike each connection that sends `when`, from its `skip`-th time on over all connections."""
        self.struck = 0
        self._armed = (when, fault, skip)
        try:
            yield
        finally:
            self._armed = None
            self.cut_all()

    def cut_all(self) -> None:
        """End every connection there is."""
        with self._lock:
            gone, self._open = self._open, []
        for one in gone:
            _shut(one)

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self.cut_all()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            relay = _Relay(self, client, server)
            for pump in (relay.forwards, relay.backwards):
                threading.Thread(target=pump, daemon=True).start()

    def strikes(self, sent: bytes) -> TcpFault | None:
        """The fault to strike with, if what a client sends is what was waited for."""
        with self._lock:
            if self._armed is None or self._armed[0] not in sent:
                return None
            when, fault, skip = self._armed
            if skip:
                self._armed = (when, fault, skip - 1)
                return None
            self.struck += 1
            return fault


class _Relay:
    def __init__(self, proxy: TcpProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._fault: TcpFault | None = None

    def forwards(self) -> None:
        """From the client to PostgreSQL."""
        with suppress(OSError):
            while chunk := self._client.recv(65536):
                # Before it is sent on: the answer must not be faster than the fault.
                self._fault = self._fault or self._proxy.strikes(chunk)
                self._server.sendall(chunk)
        _shut(self._server)

    def backwards(self) -> None:
        """From PostgreSQL to the client."""
        with suppress(OSError):
            while chunk := self._server.recv(65536):
                fault = self._fault
                if fault is not None and not self._struck(fault, chunk):
                    break
                if fault is None or fault.seconds:
                    self._client.sendall(chunk)
        _shut(self._client)

    def _struck(self, fault: TcpFault, chunk: bytes) -> bool:
        """Whether the connection goes on."""
        if fault.holds:
            return True
        if fault.instead:
            self._client.sendall(fault.instead)
            return False
        if fault.passes is not None:
            self._client.sendall(chunk[: fault.passes])
            return False
        time.sleep(fault.seconds)
        return True


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
