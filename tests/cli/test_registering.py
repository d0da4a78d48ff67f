"""Making a dataset of a connected database, and looking at its rows with a lease, all from a terminal."""

from __future__ import annotations

import json
import secrets

import pytest

from broker.base.ids import new_id
from broker.models import Dataset, Lease, Offer, Slice
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from guestkey.cli.commands.registering import condition
from guestkey.cli.faults import Fault
from tests.cli.conftest import TerminalOf
from tests.support.agreeing import agree_waiting
from tests.support.registering import register_waiting
from tests.support.sshd import SftpHost
from tests.support.world import World


def test_dataset_is_registered_from_a_connection_and_previewed(world: World, terminal_of: TerminalOf) -> None:
    setup = vault_of(world.settings, "setup")
    admin, vendor = terminal_of(world.person(roles=("admin",))), world.vendor()
    assert admin.run("connection", "read", "data").code == 0
    slice_registration.read_catalogues(world.ender, setup)
    assert "data\tpostgres\tPostgreSQL database\tcolumns and rows of a table\t" in admin.run("connection", "list").out
    assert "clinic\tpatients\t" in admin.run("connection", "tables", "data", "--part", "clinic.pat").out
    columns = admin.run("connection", "columns", "data", "clinic.patients")
    assert "email\ttext\tan e-mail address\tits name says so" in columns.out
    assert "Guestkey reads no values" in columns.err
    slug = f"made-{secrets.token_hex(4)}"
    made = admin.run("dataset", "new", slug, "--title", "Made here", "--label", "classification:internal")
    assert made.code == 0, made.err
    words = [
        "--connection",
        "data",
        "--table",
        "clinic.patients",
        "--column",
        "id",
        "--column",
        "site",
        "--where",
        "site in berlin,rome",
    ]
    added = admin.run("slice", "add", slug, "deidentified", *words, "--where", "age>=20")
    assert added.code == 0, added.err
    agree_waiting(world, slug)
    register_waiting(world)
    assert "deidentified\t" in admin.run("dataset", "show", slug).out
    odd = ["--connection", "data", "--table", 'clinic."x"', "--column", "id"]
    assert "lower case" in admin.run("slice", "add", slug, "bad", *odd).err
    assert admin.run("slice", "retry", slug, "deidentified").code != 0, "only what failed is tried again"

    with world.database.transaction() as tx:
        dataset = tx.query(Dataset).filter(Dataset.slug == slug).one()
    guest = world.person(vendor)
    stranger = terminal_of(guest).run("dataset", "preview", slug)
    assert stranger.code == 6 and "berlin" not in stranger.out
    world.add(Offer(id=new_id("of"), dataset_id=dataset.id, vendor_id=vendor.id))
    world.grant(dataset, guest)
    shown = terminal_of(guest).run("dataset", "preview", slug, "--rows", "2")
    assert shown.code == 0 and "(2 rows)" in shown.out and "berlin" in shown.out, shown.err
    with world.database.transaction() as tx:
        (lease,) = tx.query(Lease).filter(Lease.dataset_id == dataset.id).all()
    world.wait_sweeping(lease.id, "revoked")
    assert world.events(lease.id)[-1] == "lease.revoked" and "lease.issued" in world.events(lease.id)
    retired = admin.run("slice", "retire", slug, "deidentified", "--reason", "a trial", "--json")
    assert json.loads(retired.out)["data"]["status"] == "retired"


def test_connections_of_every_kind_are_listed(world: World, terminal_of: TerminalOf) -> None:
    admin = terminal_of(world.person(roles=("admin",)))
    rows = [line.split("\t") for line in admin.run("connection", "list").out.splitlines()]
    assert ["objects", "s3", "object store", "a prefix of a bucket"] in [row[:4] for row in rows]
    assert ["records", "x509", "gateway", "an OU of its certificates"] in [row[:4] for row in rows]
    told = json.loads(admin.run("connection", "list", "--kind", "s3", "--json").out)["data"]["items"]
    assert [(item["name"], item["kind"], item["healthy"]) for item in told] == [("objects", "s3", None)]
    assert admin.run("connection", "list", "--kind", "nonesuch").code == 2
    assert terminal_of(world.person(world.vendor())).run("connection", "list").code == 3


def test_x509_slice_is_added_with_its_kind(world: World, terminal_of: TerminalOf) -> None:
    admin, slug = terminal_of(world.person(roles=("admin",))), f"made-{secrets.token_hex(4)}"
    assert admin.run("dataset", "new", slug, "--title", "Made here").code == 0
    words = ["slice", "add", slug, "full", "--connection", "records", "--kind", "x509"]
    added = admin.run(*words, "--action", "write", "--action", "read")
    assert added.code == 0, added.err
    agree_waiting(world, slug)
    register_waiting(world)
    with world.database.transaction() as tx:
        (slice_,) = tx.query(Slice).join(Dataset).filter(Dataset.slug == slug).all()
    assert (slice_.kind, slice_.binding, slice_.state) == ("x509", {"connection": "records"}, "ready")
    assert slice_.actions == ["read", "write"]
    shown = json.loads(admin.run("dataset", "show", slug, "--json").out)["data"]["slices"]
    assert [item["id"] for item in shown] == [slice_.id], "the gateway is set up with it"
    words[3] = "other"
    assert "Unknown fields" in admin.run(*words, "--set", "table=x").err
    assert "has no name" in admin.run(*words, "--set", "table").err
    assert "has no table" in admin.run(*words, "--table", "a.b").err
    assert "no kind of that name for slices" in admin.run(*words[:-1], "token").err
    assert "--table" in admin.run(*words[:-2]).err


def test_failed_slice_shows_the_reason(world: World, terminal_of: TerminalOf) -> None:
    admin, slug = terminal_of(world.person(roles=("admin",))), f"made-{secrets.token_hex(4)}"
    assert admin.run("dataset", "new", slug, "--title", "Made here").code == 0
    words = ["--connection", "nowhere", "--kind", "s3", "--set", "bucket=example", "--set", "prefix=a/"]
    added = admin.run("slice", "add", slug, "lost", *words)
    assert (added.code, "No rule allows access to the slice lost." in added.err) == (0, True), added.err
    register_waiting(world)
    shown = admin.run("dataset", "show", slug).out.splitlines()[-1]
    assert shown.startswith("lost\t\ts3\tread\tfailed\tNo object store named nowhere is connected."), shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site=berlin", ["site", "=", "berlin"]),
        ("age >= 18", ["age", ">=", "18"]),
        ('zip="01234"', ["zip", "=", "01234"]),
        ("share<0.5", ["share", "<", "0.5"]),
        ("open=true", ["open", "=", "true"]),
        ("site in berlin, paris", ["site", "in", ["berlin", "paris"]]),
        ("site is not null", ["site", "not_null"]),
        ("site is null", ["site", "is_null"]),
        ("x=1; DROP TABLE y", ["x", "=", "1; DROP TABLE y"]),
        ('note=""', ["note", "=", ""]),
        ('site in "Ulm, Nord",Bonn', ["site", "in", ["Ulm, Nord", "Bonn"]]),
        ("list=[1]", ["list", "=", "[1]"]),
    ],
)
def test_where_condition_is_parsed(text: str, said: list[object]) -> None:
    assert condition(text) == said


@pytest.mark.parametrize("text", ["", "berlin", "Site=1", "a b=1", "site like x", "1=1"])
def test_invalid_where_condition_is_refused(text: str) -> None:
    with pytest.raises(Fault):
        condition(text)


def test_ssh_slice_is_added_from_the_command_line(world: World, sftp: SftpHost, terminal_of: TerminalOf) -> None:
    admin = terminal_of(world.person(roles=("admin",)))
    slug, directory = f"made-{secrets.token_hex(4)}", f"acme/{secrets.token_hex(4)}"
    assert admin.run("dataset", "new", slug, "--title", "Pictures", "--label", "classification:internal").code == 0
    add = ("slice", "add", slug, "labels", "--kind", "ssh", "--connection", "sftp", "--set", f"directory={directory}")
    added = admin.run(*add, "--action", "read", "--action", "write")
    assert added.code == 0, added.err
    register_waiting(world)
    failed = json.loads(admin.run("dataset", "show", slug, "--json").out)["data"]["slices"][0]
    assert failed["state"] == "failed" and "there is no directory" in failed["state_detail"]
    sftp.directory(directory)
    assert admin.run("slice", "retry", slug, "labels").code == 0
    register_waiting(world)
    shown = json.loads(admin.run("dataset", "show", slug, "--json").out)["data"]["slices"][0]
    assert (shown["state"], shown["actions"]) == ("ready", ["read", "write"])
    assert shown["binding"] == {"connection": "sftp", "directory": directory}
    assert admin.run(*add, "--set", "directory").code == 2
    assert admin.run(*add, "--table", "a.b").code == 2
    assert "path below" in admin.run(*add[:-1], "directory=../etc").err


def test_s3_slice_is_added_and_written_to_from_the_command_line(world: World, terminal_of: TerminalOf) -> None:
    admin, vendor = terminal_of(world.person(roles=("admin",))), world.vendor()
    dataset, ada = world.dataset(vendor, slices={}), world.person(vendor)
    of = ["--kind", "s3", "--connection", "objects", "--set", "bucket=clinic"]
    wide = admin.run("slice", "add", dataset.slug, "labels", *of, "--set", "prefix=trials")
    assert wide.code == 2 and "ends with /" in wide.err
    added = admin.run("slice", "add", dataset.slug, "labels", *of, "--set", "prefix=trials/", "--action", "write")
    assert added.code == 0, added.err
    agree_waiting(world, dataset.slug)
    world.grant(dataset, ada)
    register_waiting(world)
    guest = terminal_of(ada)
    handed = guest.run("get", dataset.slug, "--slice", "labels", "--kind", "s3", "--action", "write", "--json")
    assert handed.code == 0, handed.err
    assert json.loads(handed.out)["data"]["credential"]["prefix"] == "trials/"
    assert json.loads(handed.out)["data"]["lease"]["action"] == "write"
