"""A server that misbehaves on purpose: what the real one never does, and networks and strangers do."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def answering(raw: bytes, *, hold: bool = False, endless: bytes = b"") -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends these bytes to whoever connects; yields its address and the requests it got.

    Args:
        hold: keep the connection open afterwards.
        endless: go on sending this until the client leaves.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []
        over = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, raw, hold, endless, heard, over), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def http(status: int, body: Any, content_type: str = "application/json", **headers: str) -> bytes:
    """A complete HTTP answer; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Something", f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def problem(status: int, code: str, **members: Any) -> bytes:
    """A problem document."""
    body = {"title": f"Title of {code}", "detail": "Detail.", "advice": "guestkey advice", "code": code}
    return http(status, {**body, "status": status, **members}, "application/problem+json")


def _serve(
    listener: socket.socket, raw: bytes, hold: bool, endless: bytes, heard: list[bytes], over: threading.Event
) -> None:
    while not over.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            try:
                heard.append(connection.recv(65536))
                connection.sendall(raw)
                while endless and not over.is_set():
                    connection.sendall(endless)
                if hold:
                    over.wait(30)
            except OSError:
                continue
