"""The example that `make up` seeds: an organisation, two vendors, real public data in two datasets, pictures in one.

The data ships inside statsmodels (BSD): the RAND health insurance experiment and Fair's survey of marriages. A few
pictures of shapes to label are drawn here, so that nothing need be shipped or fetched. Everything is written through
the broker's own records, with events, as an operator on the server would.
"""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import select, update

from broker.base.database import Transaction, clock
from broker.base.ids import new_id
from broker.base.settings import Settings
from broker.embedded.openbao import OidcClient, Operator
from broker.embedded.seaweedfs import CONNECTION, SeaweedFS
from broker.embedded.stack import Stack
from broker.identity.invitations import enrol_link, has_factor, invite_to_enrol
from broker.identity.sources import wrap_client_secret
from broker.log import audit
from broker.models import Dataset, Installation, Offer, Person, RoleHeld, SignInSource, Slice, Vendor
from broker.runtime.parts import Parts, install, vault_of
from broker.worker.slice_registration import register_waiting

HOST = "organisation"
BUCKET = "example"
PICTURES_SLUG = "shapes"
PICTURES_TITLE = "Pictures of shapes"
PICTURES_ABOUT = (
    "Twelve made-up pictures of shapes, and the labels they were given so far. They are in an object store."
)
_SIDE = 48
_COLOURS = {"red": (200, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 200)}
_Inside = Callable[[float, float], bool]
_SHAPES: Mapping[str, _Inside] = {
    "circle": lambda x, y: x * x + y * y < 0.6,
    "square": lambda x, y: max(abs(x), abs(y)) < 0.65,
    "triangle": lambda x, y: -0.7 < y < 0.7 and abs(x) < (0.7 + y) / 2,
    "ring": lambda x, y: 0.25 < x * x + y * y < 0.6,
}


@dataclass(frozen=True, slots=True)
class ExamplePerson:
    """An example person: account name, full name, party, and role there."""

    username: str
    name: str
    party: str
    role: str | None
    description: str

    @property
    def email(self) -> str:
        """Where nobody reads mail."""
        return f"{self.username}@{self.party}.example"


PEOPLE = (
    ExamplePerson("olga", "Olga Owner", HOST, "admin", "admin; owns the datasets"),
    ExamplePerson("omar", "Omar Admin", HOST, "admin", "the second admin"),
    ExamplePerson("ines", "Ines Auditor", HOST, "auditor", "auditor"),
    ExamplePerson("ada", "Ada Annotator", "acme-labels", None, "engineer of the vendor Acme Labels"),
    ExamplePerson("lev", "Lev Lead", "acme-labels", "lead", "lead of the vendor Acme Labels"),
    ExamplePerson("bo", "Bo Other", "borealis", None, "engineer of the vendor Borealis, who is offered one dataset"),
)
VENDORS = {"acme-labels": "Acme Labels", "borealis": "Borealis"}


@dataclass(frozen=True, slots=True)
class Table:
    """A real table, and the dataset made of it."""

    slug: str
    title: str
    package_file: str
    name: str
    classification: str
    deidentified: tuple[str, ...]
    rows: tuple[tuple[str, str, float], ...]
    offered_to: tuple[str, ...]
    about: str


TABLES = (
    Table(
        "health-visits",
        "Health insurance experiment",
        "randhie/randhie.csv",
        "visits",
        "internal",
        ("id", "mdvis", "physlm", "disea", "hlthg", "hlthf", "hlthp"),
        (("physlm", "=", 0),),
        ("acme-labels", "borealis"),
        "Outpatient visits a year of people in the RAND health insurance experiment, 1974-1982.",
    ),
    Table(
        "marriage-survey",
        "Survey of marriages",
        "fair/fair.csv",
        "marriages",
        "confidential",
        ("id", "age", "yrs_married", "educ", "rate_marriage"),
        (("age", ">=", 22),),
        ("acme-labels",),
        "Answers of 6,366 women to a magazine's survey on marriage, 1974, as used by Ray Fair.",
    ),
)


@dataclass(frozen=True, slots=True)
class Account:
    """What is printed once: who may sign in, the password, and the one-time link to enrol a second factor."""

    username: str
    password: str
    what: str
    enrol: str | None


def seed(stack: Stack, settings: Settings, redirect_uri: str) -> list[Account]:
    """Make the example. Returns the accounts with their generated passwords, which are kept nowhere else."""
    load_tables(stack)
    load_pictures(stack.store)
    operator = Operator(stack.bao)
    client = operator.make_provider([redirect_uri])
    made = {
        example.username: operator.make_account(example.username, example.name, example.email, example.party)
        for example in PEOPLE
    }
    subjects = {username: account.subject for username, account in made.items()}
    with closing(Parts.build(settings, identity="issuer")) as parts:
        with parts.database.transaction_now() as (tx, now):
            install(tx, now)
            tx.execute(update(Installation).values(bootstrapped_at=now))
            links = _make_parties(tx, parts, client, subjects, now)
            _make_datasets(tx, now)
        register_waiting(parts, vault_of(settings, "setup"))
        watch_log_ins(stack)
    return [
        Account(example.username, made[example.username].password, example.description, links[example.username])
        for example in PEOPLE
    ]


def new_passwords(stack: Stack, settings: Settings) -> list[Account]:
    """New passwords for the example's people, and new links for those without a second factor."""
    operator = Operator(stack.bao)
    with closing(Parts.build(settings, identity="issuer")) as parts:
        passwords = {example.username: operator.set_password(example.username) for example in PEOPLE}
        return [
            Account(example.username, passwords[example.username], example.description, _new_link(parts, example))
            for example in PEOPLE
        ]


def _new_link(parts: Parts, example: ExamplePerson) -> str | None:
    with parts.database.transaction() as tx:
        person_id = tx.scalars(select(Person.id).where(Person.name == example.name)).first()
        if person_id is None or has_factor(tx, person_id):
            return None
        _, token = invite_to_enrol(tx, audit.SYSTEM, person_id, parts.settings.invitation_lifetime, clock(tx))
        return enrol_link(parts, token)


def load_tables(stack: Stack) -> None:
    """Copy the real tables into the database `data`, schema `example`, and let the registrar read them."""
    with psycopg.connect(stack.postgres.url("postgres", "data")) as connection:
        connection.execute("CREATE SCHEMA example")
        connection.execute("GRANT USAGE ON SCHEMA example TO guestkey_registrar")
        for table in TABLES:
            _load(connection, table)


def watch_log_ins(stack: Stack) -> None:
    """Let guests into the database `data` only while a worker watches over it."""
    with psycopg.connect(stack.postgres.url("postgres", "data"), autocommit=True) as connection:
        connection.execute((files("broker.kinds.postgres") / "watched_log_ins.sql").read_text().encode())


def _load(connection: psycopg.Connection[Any], table: Table) -> None:
    rows = _rows(table.package_file)
    header = next(rows)
    target = sql.Identifier("example", table.name)
    columns = sql.SQL(", ").join(sql.SQL("{} double precision").format(sql.Identifier(name)) for name in header)
    connection.execute(sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, {})").format(target, columns))
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(target)) as copy:
        for number, row in enumerate(rows, start=1):
            copy.write_row([number, *row])
    connection.execute(sql.SQL("GRANT SELECT ON {} TO guestkey_registrar").format(target))


def _rows(package_file: str) -> Iterator[list[str]]:
    spec = find_spec("statsmodels")
    if spec is None or spec.origin is None:
        raise RuntimeError("statsmodels, which ships the example's data, is not installed: guestkey[embedded]")
    with (Path(spec.origin).parent / "datasets" / package_file).open(newline="") as file:
        yield from csv.reader(file)


def _make_parties(
    tx: Transaction, parts: Parts, client: OidcClient, subjects: dict[str, str], now: datetime
) -> dict[str, str]:
    """Make vendors, sources and people; returns each person's enrolment link."""
    vendors: dict[str, str | None] = {HOST: None}
    for party, name in VENDORS.items():
        vendor = Vendor(id=new_id("vn"), name=name, status="active")
        _add(tx, vendor, "vendor.made", now, personal={"name": name})
        vendors[party] = vendor.id
    sources = {}
    for party, vendor_id in vendors.items():
        source_id = new_id("ss")
        sources[party] = SignInSource(
            id=source_id,
            name=VENDORS.get(party, "Organisation"),
            issuer=client.issuer,
            client_id=client.client_id,
            wrapped_client_secret=wrap_client_secret(parts.vault, source_id, client.client_secret),
            required_claims={"party": party},
            vendor_id=vendor_id,
            mfa_values=[],
        )
        _add(tx, sources[party], "source.bound", now, details={"vendor": vendor_id})
    links = {}
    for example in PEOPLE:
        person = _make_person(tx, example, sources[example.party], subjects[example.username], now)
        _, token = invite_to_enrol(tx, audit.SYSTEM, person.id, parts.settings.invitation_lifetime, now)
        links[example.username] = enrol_link(parts, token)
    return links


def _make_person(tx: Transaction, example: ExamplePerson, source: SignInSource, subject: str, now: datetime) -> Person:
    person = Person(
        id=new_id("pe"),
        issuer=source.issuer,
        subject=subject,
        source_id=source.id,
        vendor_id=source.vendor_id,
        name=example.name,
        email=example.email,
        status="active",
    )
    details = {"vendor": source.vendor_id, "role": example.role}
    _add(tx, person, "person.joined", now, details=details, personal={"name": example.name})
    if example.role:
        tx.add(RoleHeld(id=new_id("rh"), person_id=person.id, role=example.role))
    return person


def _make_datasets(tx: Transaction, now: datetime) -> None:
    for table in TABLES:
        labels = [f"classification:{table.classification}"]
        dataset = Dataset(slug=table.slug, title=table.title, description=table.about, labels=labels)
        _make_dataset(tx, dataset, table.offered_to, now, _slices(table))
    shapes = Dataset(
        slug=PICTURES_SLUG,
        title=PICTURES_TITLE,
        description=PICTURES_ABOUT,
        labels=["classification:internal"],
    )
    _make_dataset(tx, shapes, ("acme-labels",), now, _picture_slices())


def _make_dataset(
    tx: Transaction, dataset: Dataset, offered_to: tuple[str, ...], now: datetime, slices: Iterable[Slice]
) -> None:
    dataset.id = new_id("ds")
    dataset.owner_id = tx.scalars(select(Person.id).where(Person.name == PEOPLE[0].name)).one()
    _add(tx, dataset, "dataset.made", now)
    for made in slices:
        made.id, made.dataset_id = new_id("sl"), dataset.id
        tx.add(made)
    for party in offered_to:
        vendor_id = tx.scalars(select(Vendor.id).where(Vendor.name == VENDORS[party])).one()
        offer = Offer(id=new_id("of"), dataset_id=dataset.id, vendor_id=vendor_id)
        _add(tx, offer, "offer.made", now, details={"dataset": dataset.id})


def _slices(table: Table) -> Iterator[Slice]:
    place = {"connection": "data", "schema": "example", "table": table.name}
    header = next(_rows(table.package_file))
    for name, columns, rows, about in (
        ("deidentified", list(table.deidentified), [list(row) for row in table.rows], "Fewer columns and rows."),
        ("full", ["id", *header], [], "Every column of every row."),
    ):
        binding = place | {"columns": columns, "rows": rows}
        yield Slice(name=name, description=about, kind="postgres", binding=binding, actions=["read"])


def _add(tx: Transaction, record: Any, kind: str, now: datetime, **more: Any) -> None:
    """Insert a record, and the event that it was made by the installation itself."""
    tx.add(record)
    tx.flush()
    audit.record(tx, kind, actor=audit.SYSTEM, subject=record.id, now=now, **more)


def _picture_slices() -> Iterator[Slice]:
    """The slices of the dataset, without ids."""
    place = {"connection": CONNECTION, "bucket": BUCKET}
    for name, prefix, actions, about in (
        ("deidentified", "shapes/pictures/", ["read"], "The pictures, and a list of them."),
        ("labels", "shapes/labels/", ["read", "write"], "What was labelled so far."),
    ):
        binding = place | {"prefix": prefix}
        yield Slice(name=name, description=about, kind="s3", binding=binding, actions=actions)


def load_pictures(store: SeaweedFS) -> None:
    """Put the pictures into the example's bucket, beside something no slice shows."""
    s3 = store.client()
    s3.create_bucket(Bucket=BUCKET)
    listed = []
    for number, (shape, colour) in enumerate((shape, colour) for shape in _SHAPES for colour in _COLOURS):
        key = f"shapes/pictures/{number:02}.png"
        s3.put_object(Bucket=BUCKET, Key=key, Body=picture(shape, colour), ContentType="image/png")
        listed.append({"file": key.rpartition("/")[2], "ask": "Which shape is it?"})
    lines = "".join(json.dumps(line) + "\n" for line in listed)
    _put_text(s3, "shapes/pictures/tasks.jsonl", lines)
    _put_text(s3, "shapes/labels/00.json", json.dumps({"file": "00.png", "shape": "circle"}))
    _put_text(s3, "shapes/answers.json", json.dumps({"secret": "what every picture shows"}))


def _put_text(s3: Any, key: str, text: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode(), ContentType="application/json")


def picture(shape: str, colour: str) -> bytes:
    """A PNG of one shape (PNG specification, third edition: signature, IHDR, IDAT, IEND)."""
    inside, paint = _SHAPES[shape], bytes(_COLOURS[colour])
    rows = []
    for row in range(_SIDE):
        pixels = (
            paint if inside(2 * column / _SIDE - 1, 2 * row / _SIDE - 1) else b"\xff\xff\xff" for column in range(_SIDE)
        )
        rows.append(b"\x00" + b"".join(pixels))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
