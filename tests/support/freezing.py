"""PostgreSQL that hangs: every process of a server stopped, and let go on."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from broker.embedded.postgres import PostgresServers


def freeze(servers: PostgresServers, *, thaw: bool = False) -> None:
    """Stop every process of both servers, or let them go on."""
    number = signal.SIGCONT if thaw else signal.SIGSTOP
    for server in (servers.records, servers.data):
        if server.pid is None:
            continue
        listed = ["ps", "-o", "pid=", "--ppid", str(server.pid)]
        backends = subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split()
        for pid in [str(server.pid), *backends]:
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
