"""Servers that hang: every process of one stopped, and let go on."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from broker.embedded.children import Server
from broker.embedded.postgres import PostgresServers


def freeze(what: Server | PostgresServers, *, thaw: bool = False) -> None:
    """Stop every process of a server, or of both of PostgreSQL, or let them go on."""
    number = signal.SIGCONT if thaw else signal.SIGSTOP
    for server in (what.records, what.data) if isinstance(what, PostgresServers) else (what,):
        if server.pid is None:
            continue
        listed = ["ps", "-o", "pid=", "--ppid", str(server.pid)]
        children = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split()
        for pid in [str(server.pid), *children]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
