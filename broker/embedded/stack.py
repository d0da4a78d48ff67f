"""OpenBao, two PostgreSQL servers and an object store together under one state folder, found as they were left."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from broker.embedded.children import free_port, made_once
from broker.embedded.openbao import OpenBao, Operator
from broker.embedded.postgres import PostgresServers
from broker.embedded.seaweedfs import CONNECTION, SeaweedFS


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    web: int
    openbao: int
    openbao_cluster: int
    # Where guests log in; the records are on a server of their own.
    postgres: int
    s3: int
    records: int

    @classmethod
    def free(cls) -> Ports:
        """Six that are free now."""
        return cls(*(free_port() for _ in range(6)))


class Stack:
    """The embedded servers. `start` from the main thread: the children die with the thread that made them."""

    def __init__(self, state: Path, ports: Ports | None = None) -> None:
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o711)
        self.ports = Ports(**made_once(state / "ports.json", lambda: asdict(ports or Ports.free())))
        self.bao = OpenBao(state / "openbao", self.ports.openbao, self.ports.openbao_cluster)
        self.postgres = PostgresServers(state, records_port=self.ports.records, data_port=self.ports.postgres)
        self.store = SeaweedFS(state / "seaweedfs", self.ports.s3)

    def start(self) -> None:
        """Start all; connect them on the first time.

        Raises:
            StartFailed: one line that says what is wrong; what was started is stopped again.
        """
        try:
            # OpenBao and the object store initialise themselves while the two of PostgreSQL are made.
            self.store.launch()
            self.bao.launch()
            self.postgres.start()
            self.bao.await_serving()
            self.store.await_serving()
        except BaseException:
            # Whatever it was, Ctrl-C included: no server is left behind that nobody knows of.
            self.stop()
            raise
        connected = self.state / "connected"
        if not connected.exists():
            operator = Operator(self.bao)
            operator.connect_database(self.postgres.data)
            operator.connect_store(self.store)
            connected.touch()

    def stop(self) -> None:
        """Stop all, by process id, at once."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda server: server.stop(), (self.bao, self.postgres, self.store)))

    @property
    def public_url(self) -> str:
        """Where the portal answers. `localhost`, because passkeys refuse IP addresses."""
        return f"http://localhost:{self.ports.web}"

    def environment(self) -> dict[str, str]:
        """The `GUESTKEY_*` variables of web and worker."""
        data = {"host": "127.0.0.1", "port": self.ports.postgres, "dbname": "data", "sslmode": "disable"}
        variables: dict[str, Any] = {
            "PUBLIC_URL": self.public_url,
            "DATABASE_URL": self.postgres.url("app", "guestkey"),
            "OWNER_DATABASE_URL": self.postgres.url("owner", "guestkey"),
            "BAO_ADDR": self.bao.address,
            "POSTGRES_CONNECTIONS": json.dumps({"data": data}),
            "S3_CONNECTIONS": json.dumps({CONNECTION: self.store.setting()}),
            # The embedded identity provider.
            "SIGN_IN_NETWORKS": json.dumps(["127.0.0.0/8", "::1/128"]),
        }
        for identity in ("issuer", "ender", "setup"):
            variables[f"BAO_{identity.upper()}__ROLE_ID"] = f"guestkey-{identity}"
            file = self.bao.secret_id_file(f"guestkey-{identity}")
            variables[f"BAO_{identity.upper()}__SECRET_ID_FILE"] = str(file)
        return {f"GUESTKEY_{key}": str(value) for key, value in variables.items()}
