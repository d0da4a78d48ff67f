"""The two embedded PostgreSQL servers as one: one for the broker's records, one for the datasets guests read."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from broker.embedded.postgres import DATA, RECORDS, Postgres
from broker.embedded.postgres_split import copy_cluster, holds_both, take_apart


class PostgresServers:
    """Both servers. `start` and `launch` from the main thread: the children die with the thread that made them."""

    def __init__(self, state: Path, *, records_port: int, data_port: int) -> None:
        self.records = Postgres(state / "records", records_port, RECORDS)
        # The name of the folder is that of the time when one server held both.
        self.data = Postgres(state / "postgresql", data_port, DATA)
        self._both = (self.records, self.data)

    def launch(self) -> None:
        """Start both without waiting; make their clusters on the first time, at once.

        Raises:
            StartFailed: a port is taken, or initdb fails.
        """
        # A state folder of the time when one server held both.
        shared = holds_both(self.data)
        if shared:
            copy_cluster(self.data, self.records)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Postgres.prepare, self._both))
        for server in self._both:
            server.launch()
        if shared:
            self.await_serving()
            take_apart(self.data, self.records)

    def await_serving(self) -> None:
        """Wait until both serve.

        Raises:
            StartFailed: one does not come up.
        """
        for server in self._both:
            server.await_serving()

    def start(self) -> None:
        """Start both, and return once they serve.

        Raises:
            StartFailed: a port is taken, or one does not come up.
        """
        self.launch()
        self.await_serving()

    def stop(self) -> None:
        """Stop both, ending open sessions; their state stays."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Postgres.stop, self._both))

    def freeze(self, *, thaw: bool = False) -> None:
        """Stop (or let go on) every process of both, for tests of hanging backends."""
        for server in self._both:
            server.freeze(thaw=thaw)

    def url(self, login: str, database: str) -> str:
        """`postgresql://…` for one of the logins; any database but the records' is on the datasets' server."""
        return self._of(database).url(login, database)

    @property
    def passwords(self) -> Mapping[str, str]:
        """Of all logins; `postgres` is the superuser of the datasets' server."""
        return {**self.records.passwords, **self.data.passwords}

    @property
    def logs(self) -> tuple[Path, ...]:
        """What both write to."""
        return tuple(server.log for server in self._both)

    def _of(self, database: str) -> Postgres:
        return self.records if database == RECORDS.database else self.data
