"""Issuance against the bare key store, in one run on the same machine.

(a) `token` through the API and the full gate, durable and audited, at 1, 16 and 64 clients, against OpenBao's own
    `auth/token/create` on raft with its audit file.
(b) `postgres` through the story, against reading bare `database/creds`, one after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from json import dumps, loads
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.request import urlopen

from sqlalchemy import update

from broker.base.database import clock
from broker.base.settings import Settings
from broker.embedded.children import free_port
from broker.embedded.openbao import InitialRequest, OpenBao
from broker.embedded.stack import Ports, Stack
from broker.kinds.names import policy_of, role_of
from broker.leases.sweeping import end_marked
from broker.migrations import upgrade
from broker.models import Lease
from broker.runtime.parts import Parts, install
from tests.support.data import make_clinic
from tests.support.world import Signed, World

CLIENTS = (1, 16, 64)
REQUESTS = 320
PAIRS = 40
MOST_RATIO = 2.0


@dataclass(frozen=True)
class TokenRow:
    """Requests a second on both sides at one number of clients."""

    clients: int
    guestkey: float
    openbao: float


@dataclass(frozen=True)
class PostgresRow:
    """Medians in milliseconds, and where the story's time goes."""

    story: float
    bare: float
    decision: float


@contextmanager
def running(more: Sequence[InitialRequest] = ()) -> Iterator[tuple[World, str]]:
    """A throw-away stack with one web process; yields its world and the web's address.

    Args:
        more: what else OpenBao's initialisation asks for.
    """
    with TemporaryDirectory(prefix="guestkey-bench-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder), Ports.free())
        stack.bao = OpenBao(stack.bao.state, stack.ports.openbao, stack.ports.openbao_cluster, more=more)
        stack.start()
        web: subprocess.Popen[bytes] | None = None
        try:
            upgrade(stack.postgres.url("owner", "guestkey"))
            make_clinic(stack.postgres.url("postgres", "data"))
            os.environ.update(
                stack.environment(),
                GUESTKEY_RATE_LIMIT_PER_MINUTE="1000000",
                GUESTKEY_RATE_LIMIT_ANONYMOUS_PER_MINUTE="1000000",
                GUESTKEY_MAX_LIVE_LEASES="1000",
                GUESTKEY_LOG_LEVEL="WARNING",
            )
            settings = Settings()
            parts = Parts.build(settings, identity="issuer")
            with parts.database.transaction() as tx:
                install(tx, clock(tx))
            port = free_port()
            command = [str(Path(sys.executable).with_name("guestkey")), "serve", "--port", str(port)]
            variables = {**os.environ, "GUESTKEY_PUBLIC_URL": f"http://localhost:{port}"}
            web = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _await(f"http://localhost:{port}/readyz")
            yield World(stack, settings, parts, Parts.build(settings, identity="ender")), f"localhost:{port}"
        finally:
            if web is not None:
                web.terminate()
                web.wait(15)
            stack.stop()


@contextmanager
def bare_openbao() -> Iterator[tuple[str, str]]:
    """An OpenBao of its own on raft with an audit file, and a token that may make tokens; yields both."""
    more = identity('path "auth/token/create" { capabilities = ["update"] }')
    with TemporaryDirectory(prefix="guestkey-bench-") as folder:
        bao = OpenBao(Path(folder), free_port(), free_port(), more=more)
        bao.start()
        try:
            yield bao.address.removeprefix("http://"), logged_in(bao)
        finally:
            bao.stop()


def identity(policy: str) -> list[InitialRequest]:
    """What gives OpenBao an identity `bench` that may do what the policy says."""
    approle = "auth/approle/role/bench"
    return [
        ("bench-policy", "sys/policies/acl/bench", {"policy": policy}),
        ("bench-role", approle, {"token_policies": ["bench"], "token_period": "1h"}),
        ("bench-role-id", f"{approle}/role-id", {"role_id": "bench"}),
        ("bench-secret-id", f"{approle}/custom-secret-id", {"secret_id": "bench-only"}),
    ]


def logged_in(bao: OpenBao) -> str:
    """A token of that identity."""
    connection = HTTPConnection(bao.address.removeprefix("http://"))
    connection.request("POST", "/v1/auth/approle/login", dumps({"role_id": "bench", "secret_id": "bench-only"}))
    token = str(loads(connection.getresponse().read())["auth"]["client_token"])
    connection.close()
    return token


def tokens(world: World, web: str, bao: str, bao_token: str) -> list[TokenRow]:
    """(a)"""
    vendor = world.vendor()
    dataset = world.dataset(vendor)
    people = [world.person(vendor) for _ in range(max(CLIENTS))]
    for person in people:
        world.grant(dataset, person)
    ask = dumps({"dataset": dataset.slug, "slice": "deidentified", "kind": "token", "lifetime": 300}).encode()
    rows = []
    for clients in CLIENTS:

        def ours(
            connection: HTTPConnection, number: int, people: list[Signed] = people, clients: int = clients
        ) -> None:
            headers = {"Content-Type": "application/json", **people[number % clients].headers}
            _post(connection, "/api/v1/leases", ask, headers, 201)

        def theirs(connection: HTTPConnection, number: int) -> None:
            name = f"bench-{number}-{perf_counter()}".replace(".", "-")
            body = {"meta": {"lease": name}, "display_name": name, "policies": ["bench"], "ttl": "300s"}
            _post(connection, "/v1/auth/token/create", dumps(body).encode(), {"X-Vault-Token": bao_token}, 200)

        _rate(web, ours, clients, clients * 2)
        rows.append(TokenRow(clients, _rate(web, ours, clients, REQUESTS), _rate(bao, theirs, clients, REQUESTS)))
    return rows


def postgres(world: World) -> PostgresRow:
    """(b): pairs, the story and the bare engine in turn."""
    signed, dataset, _ = world.guest()
    slice_id = next(row["id"] for name, row in _slices(world, dataset.slug).items() if name == "deidentified")
    vault = world.parts.vault
    story, bare = [], []
    numbers = count()
    for _ in range(PAIRS):
        began = perf_counter()
        handed = world.issue(signed, dataset)
        story.append((perf_counter() - began) * 1000)
        token = vault.child_token(f"bench-b{next(numbers)}", "bench", [policy_of(slice_id)], ttl=300)
        began = perf_counter()
        vault.database_credential(token, role_of(slice_id))
        bare.append((perf_counter() - began) * 1000)
        with world.database.transaction() as tx:
            now = clock(tx)
            tx.execute(update(Lease).where(Lease.id == handed.lease.id).values(state="revoking", next_attempt_at=now))
    with ThreadPoolExecutor(4) as pool:
        while end_marked(world.ender, pool):
            continue
    return PostgresRow(median(story), median(bare), _decision_time(world, signed, dataset.slug))


def _decision_time(world: World, signed: Signed, slug: str) -> float:
    """Facts, gate, event and pending row: the part of the story before any backend."""
    from broker.gate.explain import explain_access
    from broker.gate.facts import Ask

    times = []
    for _ in range(PAIRS):
        began = perf_counter()
        with world.database.transaction() as tx:
            explain_access(world.parts, tx, signed.caller, Ask(slug, slice="deidentified"))
        times.append((perf_counter() - began) * 1000)
    return median(times)


def _slices(world: World, slug: str) -> dict[str, dict[str, str]]:
    from broker.gate.facts import Ask, gather

    signed = world.person()
    with world.database.transaction() as tx:
        return {name: dict(row) for name, row in gather(tx, signed.caller, Ask(slug)).slices.items()}


def _rate(host: str, call: Callable[[HTTPConnection, int], None], clients: int, requests: int) -> float:
    """Requests a second over `clients` kept connections."""

    def client(number: int) -> None:
        connection = HTTPConnection(host, timeout=30)
        for _ in range(requests // clients):
            call(connection, number)
        connection.close()

    began = perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return (requests // clients) * clients / (perf_counter() - began)


def _post(connection: HTTPConnection, path: str, body: bytes, headers: dict[str, str], wanted: int) -> None:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != wanted:
        raise RuntimeError(f"{path}: {answer.status} {content[:300]!r}")


def _await(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with urlopen(url, timeout=3) as answer:  # noqa: S310  our own address
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer")


def main() -> bool:
    """Print both tables; true if (b) is within its bound."""
    with running() as (world, web):
        print("(a) token through the full gate, against OpenBao's auth/token/create")
        print(f"{'clients':>8} {'guestkey/s':>11} {'openbao/s':>11} {'ratio':>7}")
        with bare_openbao() as (bao, bao_token):
            rows = tokens(world, web, bao, bao_token)
        for row in rows:
            print(f"{row.clients:>8} {row.guestkey:>11.0f} {row.openbao:>11.0f} {row.guestkey / row.openbao:>6.2f}x")
        result = postgres(world)
        ratio = result.story / result.bare
        print("\n(b) postgres through the story, against bare database/creds (medians)")
        print(f"    story {result.story:.1f} ms, bare {result.bare:.1f} ms, ratio {ratio:.2f} (at most {MOST_RATIO})")
        print(f"    of the story, facts and gate take {result.decision:.1f} ms")
        return ratio <= MOST_RATIO


if __name__ == "__main__":
    main()
