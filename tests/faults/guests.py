"""For each kind, a guest for whom everything holds, and whether what such a guest was handed still opens anything."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pymysql
import pytest
from botocore.exceptions import ClientError

from broker.embedded import children
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.leases.issuing import Handed
from broker.models import Dataset, Grant
from broker.oauth.signed import claims_of_live
from tests.credentials import test_contract
from tests.support.data import BERLIN
from tests.support.gateway import NAME as GATEWAY_NAME
from tests.support.gateway import Gateway
from tests.support.gateway import ask as ask_again
from tests.support.gateway import guest as gateway_guest
from tests.support.mariadb import WARD_DEIDENTIFIED, Mariadb, ask
from tests.support.objects import opened, readable
from tests.support.sshd import CONNECTION as SFTP_NAME
from tests.support.sshd import SftpGuest, SftpHost, key_pair
from tests.support.world import PICTURES, Signed, World

# Gives the server of a kind that needs one of its own, by its fixture's name; starts it the first time.
place: ContextVar[Callable[[str], Any]] = ContextVar("place")
Values = Mapping[str, str]
Staying = Callable[[Values], AbstractContextManager[Callable[[], bool]]]


@dataclass(frozen=True)
class Guest:
    """Somebody with a grant on a dataset that is served as a kind.

    `opens` tries what was handed over at whoever guards the slice, as a thief would. `stays` keeps something open with
    it, for kinds where that is possible: what it yields says whether it still goes on. `asks` goes into the request.
    """

    kind: Kind
    signed: Signed
    dataset: Dataset
    grant: Grant
    opens: Callable[[Values], bool]
    stays: Staying | None = None
    asks: Mapping[str, Any] = field(default_factory=dict)
    # Whether its guard asks the broker each time, and so opens for nothing that is not recorded as active.
    asked_about: bool = False

    def body(self, **more: Any) -> dict[str, Any]:
        """What is posted to `/leases`."""
        return {"dataset": self.dataset.slug, "slice": "deidentified", "kind": self.kind.name, **self.asks, **more}

    def issue(self, world: World, **changes: Any) -> Handed:
        """Issue through the story, in this process."""
        return world.issue(self.signed, self.dataset, kind=self.kind.name, **self.asks, **changes)


def each_kind(short: str, *, among: Callable[[Kind], bool] = lambda kind: True) -> list[Any]:
    """Names of kinds to try something with: one in the short form, all of them in the whole."""
    names = sorted(name for name, kind in kinds.items() if among(kind))
    return [pytest.param(name, marks=() if name == short else pytest.mark.whole) for name in names]


def guest(world: World, name: str) -> Guest:
    """A guest of a kind, new in everything."""
    return _MAKING[name](world)


def _of_a_table(world: World) -> Guest:
    signed, dataset, grant = world.guest()
    works = test_contract.TestPostgres().works
    return Guest(kinds["postgres"], signed, dataset, grant, partial(works, world), partial(_in_a_session, world))


@contextmanager
def _in_a_session(world: World, values: Values) -> Iterator[Callable[[], bool]]:
    port = world.stack.ports.postgres
    with psycopg.connect(
        host="127.0.0.1", port=port, dbname="data", user=values["username"], password=values["password"]
    ) as session:
        session.autocommit = True

        def goes_on() -> bool:
            try:
                session.execute(f"SELECT count(*) FROM {values['relation']}")
            except psycopg.OperationalError:
                return False
            return True

        yield goes_on


def _of_the_ward(world: World) -> Guest:
    ward: Mariadb = place.get()("ward")
    served = _served(world, "mariadb", WARD_DEIDENTIFIED)

    @contextmanager
    def in_a_session(values: Values) -> Iterator[Callable[[], bool]]:
        with ward.guest(values) as session:
            yield lambda: _reads(session, values)

    def opens(values: Values) -> bool:
        try:
            with ward.guest(values) as session:
                return _reads(session, values)
        except pymysql.OperationalError:
            return False

    return Guest(*served, opens, in_a_session)


def _reads(session: pymysql.Connection[Any], values: Values) -> bool:
    try:
        return len(ask(session, f"SELECT * FROM {values['relation']}")) == BERLIN
    except (pymysql.OperationalError, pymysql.InterfaceError):
        return False


def _served(
    world: World, name: str, binding: Mapping[str, Any], *, slice_: str = "deidentified", action: str = "read"
) -> tuple[Kind, Signed, Dataset, Grant]:
    """A dataset with one slice of a kind, and somebody with a grant on it."""
    vendor = world.vendor()
    dataset = world.dataset(vendor, kind=name, slices={slice_: binding}, actions=(action,))
    signed = world.person(vendor)
    return kinds[name], signed, dataset, world.grant(dataset, signed)


def labeller(world: World) -> Guest:
    """Somebody who may hand labels in to an object store, and reads nothing there."""
    served = _served(world, "s3", PICTURES, slice_="labels", action="write")
    return Guest(*served, _puts, asks={"slice": "labels", "action": "write"})


def _puts(values: Values) -> bool:
    try:
        opened(values).put_object(Bucket=values["bucket"], Key=f"{values['prefix']}tried", Body=b"{")
    except ClientError:
        return False
    return True


def _of_pictures(world: World) -> Guest:
    return Guest(*_served(world, "s3", PICTURES), readable, _in_a_listing)


@contextmanager
def _in_a_listing(values: Values) -> Iterator[Callable[[], bool]]:
    """A client that goes on asking over the connection it has."""
    s3 = opened(values)

    def goes_on() -> bool:
        try:
            s3.list_objects_v2(Bucket=values["bucket"], Prefix=values["prefix"])
        except ClientError:
            return False
        return True

    yield goes_on


def _of_an_sftp_host(world: World) -> Guest:
    host: SftpHost = place.get()("sftp")
    private, public = key_pair()
    directory = f"faults/{secrets.token_hex(4)}"
    lies_in = host.directory(directory)
    served = _served(world, "ssh", {"connection": SFTP_NAME, "directory": directory})
    with (lies_in / "big").open("wb") as file:
        file.truncate(1 << 32)

    def opens(values: Values) -> bool:
        with TemporaryDirectory(prefix="guestkey-guest-") as folder:
            return SftpGuest(Path(folder), private, values).gets_in()

    @contextmanager
    def in_a_transfer(values: Values) -> Iterator[Callable[[], bool]]:
        with TemporaryDirectory(prefix="guestkey-guest-") as folder:
            transfer = SftpGuest(Path(folder), private, values).transfer("big")
            try:
                yield lambda: transfer.poll() is None
            finally:
                children.stop(transfer)

    return Guest(*served, opens, in_a_transfer, {"public_key": public}, asked_about=True)


def _of_a_gateway(world: World) -> Guest:
    gate: Gateway = place.get()("gate")
    own = gateway_guest()
    served = _served(world, "x509", {"connection": GATEWAY_NAME})

    def opens(values: Values) -> bool:
        assert gate.refresh().returncode == 0
        return gate.get(values["certificate"], own.key_pem)[0] == 200

    @contextmanager
    def on_a_connection(values: Values) -> Iterator[Callable[[], bool]]:
        with gate.connect(values["certificate"], own.key_pem) as connection:

            def goes_on() -> bool:
                assert gate.refresh().returncode == 0
                try:
                    return ask_again(connection)[0] == 200
                except OSError:
                    return False

            yield goes_on

    return Guest(*served, opens, on_a_connection, {"public_key": own.request})


def _of_whoever_introspects(world: World) -> Guest:
    signed, dataset, grant = world.guest()
    return Guest(kinds["token"], signed, dataset, grant, partial(_introspected, world), asked_about=True)


def _introspected(world: World, values: Values) -> bool:
    # The address of the replica that signed is whatever port it had.
    payload = values["access_token"].split(".")[1]
    issuer = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iss"]
    return claims_of_live(world.parts, issuer, values["access_token"]) is not None


_MAKING: dict[str, Callable[[World], Guest]] = {
    "mariadb": _of_the_ward,
    "postgres": _of_a_table,
    "s3": _of_pictures,
    "ssh": _of_an_sftp_host,
    "token": _of_whoever_introspects,
    "x509": _of_a_gateway,
}
