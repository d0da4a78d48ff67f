"""A real `guestkey serve` spoken to by the byte, and what every answer must be."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

# What a server promises is shorter; a busy machine may take this much longer.
PATIENCE = 60.0


@dataclass
class Served:
    """A running `guestkey serve`, and where its log goes."""

    port: int
    child: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://localhost:{self.port}"

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        """A bare connection."""
        return socket.create_connection((host, self.port), timeout=PATIENCE)

    def head(self, start: str = "POST /oauth/token", *lines: str) -> bytes:
        """The head of a request."""
        return "\r\n".join([f"{start} HTTP/1.1", f"Host: localhost:{self.port}", *lines, "", ""]).encode()

    def lines(self) -> list[dict[str, object]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


def read_to_end(raw: socket.socket) -> bytes:
    """Everything until the server closes; a reset is an end too."""
    raw.settimeout(PATIENCE)
    found = b""
    try:
        while got := raw.recv(65536):
            found += got
    except ConnectionResetError:
        pass
    return found


def is_problem(answer: bytes, status: int, code: str) -> None:
    """Check a raw answer: the status, every security header, and a problem document."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].split(b" ")[1] == str(status).encode(), answer
    lowered = head.lower()
    for header in (b"content-security-policy", b"x-content-type-options", b"referrer-policy", b"cache-control"):
        assert header in lowered, (header, answer)
    assert b"application/problem+json" in lowered
    assert json.loads(body)["code"] == code
