"""Ending 1,000 live PostgreSQL leases by the kill switch, against `bao lease revoke -sync -prefix`, in one run.

Ours: a vendor is suspended over HTTP, a worker ends its leases; the clock stops when every one of them is recorded as
confirmed, and PostgreSQL must then show neither user nor session. Theirs: the same number of users of the same
making, ended by OpenBao alone, once with the revocation statements every slice has and, harder, without their pause.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from json import dumps, loads
from pathlib import Path
from statistics import median
from time import perf_counter

import psycopg
from sqlalchemy import func, select

from benchmarks.bench_issue import identity, logged_in, running
from broker.embedded import openbao
from broker.kinds.names import policy_of, role_of
from broker.kinds.postgres.slices import role_definition
from broker.models import Lease
from broker.runtime.parts import vault_of
from tests.support.world import World

LEASES = 1000
PEOPLE = 20
SESSIONS = 10
ROUNDS = 2
MOST_RATIO = 1.2
_LIFETIME = 3000
_HANDS = 8
_PAUSE = "pg_sleep"
_POLICY = """
path "sys/leases/revoke-prefix/database/creds/gk-*" { capabilities = ["update", "sudo"] }
path "sys/leases/renew" { capabilities = ["update"] }
"""
Login = dict[str, str]


@dataclass(frozen=True)
class Ended:
    """Seconds for the same number of leases: ours, OpenBao's without any pause, and with each slice's statements."""

    ours: list[float]
    bare: list[float]
    same: float

    @property
    def ratio(self) -> float:
        """Ours to the faster of OpenBao's two ways."""
        return median(self.ours) / min(median(self.bare), self.same)


def measure(leases: int = LEASES, rounds: int = ROUNDS) -> Ended:
    """Both sides in turn, so that whatever the machine does meanwhile is shared."""
    with running(identity(_POLICY)) as (world, web):
        bench = _Bench(world, web, leases)
        ours, bare = [], []
        for _ in range(rounds):
            bare.append(bench.theirs(pausing=False))
            ours.append(bench.ours())
        return Ended(ours, bare, bench.theirs(pausing=True))


class _Bench:
    """What both sides share: the world, its admin, and the database's superuser to look with."""

    def __init__(self, world: World, web: str, leases: int) -> None:
        self._world, self._web, self._leases = world, web, leases
        self._token = logged_in(world.stack.bao)

    def ours(self) -> float:
        """Suspend a vendor with that many live leases; seconds until the last is confirmed."""
        world = self._world
        vendor = world.vendor()
        dataset = world.dataset(vendor)
        people = [world.person(vendor) for _ in range(PEOPLE)]
        for person in people:
            world.grant(dataset, person)
        admin = world.person(roles=("admin",))
        with ThreadPoolExecutor(_HANDS) as pool:
            handed = list(
                pool.map(
                    lambda number: world.issue(people[number % PEOPLE], dataset, lifetime=_LIFETIME),
                    range(self._leases),
                )
            )
        # A worker that ran on would forget the other side's users: no lease of ours accounts for them.
        with self._sessions([dict(one.values or {}) for one in handed[:SESSIONS]]), _worker():
            # The last credentials' first minute is lengthened beside the answer, and the worker starts.
            time.sleep(3)
            began = perf_counter()
            connection = HTTPConnection(self._web, timeout=30)
            headers = {"Content-Type": "application/json", **admin.headers}
            connection.request("POST", f"/api/v1/vendors/{vendor.id}/suspend", dumps({"reason": "bench"}), headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 202:
                raise RuntimeError(f"suspending: {answer.status} {content[:300]!r}")
            suspension = str(loads(content)["suspension"])
            while self._unconfirmed(suspension):
                time.sleep(0.02)
            took = perf_counter() - began
            self._require_gone(f"gk_{world.parts.tag}_%")
        return took

    def theirs(self, *, pausing: bool) -> float:
        """The same number of users, revoked by OpenBao's own command."""
        world = self._world
        slice_id = world.slice_id(world.dataset())
        if not pausing:
            setup = vault_of(world.settings, "setup")
            definition = role_definition("data", f"gks_{slice_id.removeprefix('sl_')}")
            for which in ("revocation_statements", "rollback_statements"):
                definition[which] = [statement for statement in definition[which] if _PAUSE not in statement]
            setup.write_role("database", role_of(slice_id), definition)
        tag = "b" + secrets.token_hex(2) + "0"

        def make(number: int) -> Login:
            vault, name = world.parts.vault, f"l{number:05}"
            token = vault.child_token(f"{tag}-{name}", name, [policy_of(slice_id)], ttl=2 * _LIFETIME)
            made = vault.database_credential(token, role_of(slice_id))
            vault.renew_lease(made.lease_id, _LIFETIME)
            return {"username": made.username, "password": made.password}

        with ThreadPoolExecutor(_HANDS) as pool:
            logins = list(pool.map(make, range(self._leases)))
        with self._sessions(logins[:SESSIONS]):
            began = perf_counter()
            self._revoke_prefix(f"database/creds/{role_of(slice_id)}")
            took = perf_counter() - began
            self._require_gone(f"gk_{tag}_%")
        return took

    def _revoke_prefix(self, prefix: str) -> None:
        """As an operator would: again, should OpenBao's longest request end before its work does."""
        environment = {
            "BAO_ADDR": self._world.stack.bao.address,
            "BAO_TOKEN": self._token,
            "BAO_CLIENT_TIMEOUT": "600s",
            "HOME": os.environ.get("HOME", "/"),
        }
        command = [str(openbao.binary()), "lease", "revoke", "-sync", "-prefix", prefix]
        for _ in range(5):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
        raise RuntimeError(f"bao lease revoke: {done.stderr[:300]}")

    @contextmanager
    def _sessions(self, logins: list[Login]) -> Iterator[None]:
        """Some of the holders are logged in, in the middle of a transaction."""
        port = self._world.stack.ports.postgres
        sessions = [
            psycopg.connect(
                host="127.0.0.1", port=port, dbname="data", user=login["username"], password=login["password"]
            )
            for login in logins
        ]
        for session in sessions:
            session.execute("SELECT 1")
        try:
            yield
        finally:
            for session in sessions:
                session.close()

    def _unconfirmed(self, suspension: str) -> int:
        with self._world.database.transaction() as tx:
            query = (
                select(func.count())
                .select_from(Lease)
                .where(Lease.suspension_id == suspension, Lease.state != "revoked")
            )
            return tx.execute(query).scalar_one()

    def _require_gone(self, pattern: str) -> None:
        """PostgreSQL itself must show neither a user nor a session of one, dropped users included."""
        with self._world.admin() as admin:
            row = admin.execute(
                "SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE %(like)s),"
                " (SELECT count(*) FROM pg_stat_activity a WHERE usename LIKE %(like)s OR (usesysid IS NOT NULL"
                "   AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)))",
                {"like": pattern.replace("_", r"\_")},
            ).fetchone()
        if row != (0, 0):
            raise RuntimeError(f"still there: {row}")


@contextmanager
def _worker() -> Iterator[None]:
    """One worker process, as in production."""
    command = [str(Path(sys.executable).with_name("guestkey")), "worker"]
    process = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def main(say: Callable[[str], None] = print) -> bool:
    """Print what was measured; true if it is within the bound."""
    ended = measure()
    say(f"(d) ending {LEASES} live postgres leases, {SESSIONS} of them with an open session, until confirmed gone")
    say(f"    suspending their vendor        {_listed(ended.ours)}")
    say(f"    bao revoke -prefix, no pause   {_listed(ended.bare)}")
    say(f"    bao revoke -prefix, as slices  {ended.same:.1f} s")
    say(f"    ratio to the faster one {ended.ratio:.2f} (at most {MOST_RATIO})")
    return ended.ratio <= MOST_RATIO


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{one:.1f} s" for one in seconds)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
