"""S3 at the command line: `run`, `connect`, `credential_process` with boto3 and AWS's own program, on a real store."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from broker.base.ids import new_id
from broker.models import ApiToken, Dataset, Lease, Slice
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import PROGRAM, Terminal
from tests.support.data import PICTURES as HOW_MANY
from tests.support.world import FULL, PICTURES, Signed, World

pytestmark = pytest.mark.usefixtures("worker")
# Debian's: what a person's own PATH finds first may want that person's home.
SYSTEM = f"{PROGRAM.parent}:/usr/bin:/bin"
LIST = """
import boto3, os
s3 = boto3.client("s3")
found = s3.list_objects_v2(Bucket=os.environ["GUESTKEY_BUCKET"], Prefix=os.environ["GUESTKEY_PREFIX"])
print(found["KeyCount"], s3.meta.endpoint_url, s3.meta.region_name)
"""
MANY = """
import boto3, sys
s3 = boto3.Session(profile_name="guest").client("s3", endpoint_url=sys.argv[1])
for _ in range(int(sys.argv[2])):
    print(s3.list_objects_v2(Bucket="clinic", Prefix="trials/")["KeyCount"], s3._request_signer._credentials.access_key)
"""


def pictures(world: World, factor_age: int = 10) -> tuple[Signed, Dataset]:
    """Somebody who may read the pictures of a bucket."""
    vendor = world.vendor()
    signed = world.person(vendor, factor_age=factor_age)
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES})
    world.grant(dataset, signed)
    return signed, dataset


def leases(world: World, signed: Signed) -> list[str]:
    """The states of somebody's leases, oldest first."""
    with world.database.transaction() as tx:
        return list(tx.scalars(select(Lease.state).where(Lease.person_id == signed.id).order_by(Lease.created_at)))


@pytest.fixture
def runtime(tmp_path: Path) -> str:
    """A session's own folder in memory."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    return str(folder)


def profile(terminal: Terminal, dataset: Dataset, *more: str) -> dict[str, str]:
    """An AWS config whose profile `guest` gets its credentials from us; the variables that name it."""
    file = terminal.home / "aws-config"
    command = [str(PROGRAM), "get", dataset.slug, "--kind", "s3", "--format", "credential-process", *more]
    file.write_text(f"[profile guest]\nregion = us-east-1\ncredential_process = {' '.join(command)}\n")
    return {**terminal.variables, "AWS_CONFIG_FILE": str(file), "PATH": SYSTEM}


def boto3_calls(variables: dict[str, str], world: World, calls: int) -> subprocess.CompletedProcess[str]:
    """So many calls of one boto3 client with that profile."""
    return subprocess.run(
        [sys.executable, "-c", MANY, world.stack.store.address, str(calls)],
        capture_output=True,
        text=True,
        env=variables,
        timeout=100,
        check=False,
    )


def test_run_sets_everything_boto3_needs(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset = pictures(world)
    foreign = {"AWS_PROFILE": "absent", "AWS_ENDPOINT_URL_S3": "http://x.invalid", "AWS_ACCESS_KEY_ID": "FOREIGN"}
    ran = terminal_of(signed).run("run", dataset.slug, "--", sys.executable, "-c", LIST, **foreign)
    assert ran.code == 0, ran.err
    assert ran.out == f"{HOW_MANY} {world.stack.store.address} us-east-1\n"
    assert leases(world, signed) == ["revoked"]


def test_connect_lists_and_says_how_to_copy(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    # Where several slices are open, the command that is said must name the one that was opened.
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES, "labels": PICTURES})
    world.grant(dataset, signed)
    terminal = terminal_of(signed)
    assert "--slice NAME" in terminal.run("connect", dataset.slug, PATH=SYSTEM).err
    ran = terminal.run("connect", dataset.slug, "--slice", "deidentified", PATH=SYSTEM)
    assert ran.code == 0, ran.err
    assert [line.split()[-1] for line in ran.out.splitlines()] == [f"{number}.json" for number in range(HOW_MANY)]
    copying = next(line for line in ran.err.splitlines() if line.startswith("Copy from it: "))
    command = copying.removeprefix("Copy from it: guestkey ").replace("NAME .", f"0.json {tmp_path}/got.json")
    copied = terminal.run(*command.split(), PATH=SYSTEM)
    assert copied.code == 0, copied.err
    assert (tmp_path / "got.json").read_text() == '{"label": "cat"}'
    assert leases(world, signed) == ["revoked", "revoked"]


def test_connect_to_a_write_only_slice_issues_no_lease(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset = pictures(world)
    ran = terminal_of(signed).run("connect", dataset.slug, "--action", "write", PATH=SYSTEM)
    assert ran.err.splitlines()[-1] == f"Next: guestkey run {dataset.slug} --kind s3 --action write -- YOUR-TOOL"
    assert (ran.code, leases(world, signed)) == (125, [])


def test_connect_without_the_aws_program_issues_no_lease(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset = pictures(world)
    ran = terminal_of(signed).run("connect", dataset.slug, PATH=str(tmp_path))
    assert (ran.code, leases(world, signed)) == (125, [])
    assert "aws is not installed here" in ran.err


def test_one_lease_serves_many_calls_of_boto3(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world)
    variables = profile(terminal_of(signed), dataset) | {"XDG_RUNTIME_DIR": runtime}
    ran = boto3_calls(variables, world, 8)
    assert ran.returncode == 0, ran.stderr
    answers = [line.split() for line in ran.stdout.splitlines()]
    assert {count for count, _ in answers} == {str(HOW_MANY)} and len({key for _, key in answers}) == 1
    assert leases(world, signed) == ["active"], "boto3 asks at every call in the last quarter of an hour"
    (folder,) = Path(runtime).iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.glob("*.json")} == {0o600}


def test_aws_cli_works_with_the_credential_process_profile(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world)
    variables = profile(terminal_of(signed), dataset) | {"XDG_RUNTIME_DIR": runtime}
    command = [
        "aws",
        "--profile",
        "guest",
        "--endpoint-url",
        world.stack.store.address,
        "s3",
        "ls",
        "s3://clinic/trials/",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert (ran.returncode, len(ran.stdout.splitlines())) == (0, HOW_MANY), ran.stderr


def test_credential_process_document_is_valid_and_correct(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world)
    terminal = terminal_of(signed)
    wanted = ("get", dataset.slug, "--kind", "s3", "--format", "credential_process", "--for", "10m")
    ran = terminal.run(*wanted, XDG_RUNTIME_DIR=runtime)
    assert (ran.code, ran.err) == (0, ""), ran
    document = json.loads(ran.out)
    assert sorted(document) == ["AccessKeyId", "Expiration", "SecretAccessKey", "SessionToken", "Version"]
    left = datetime.fromisoformat(document["Expiration"]) - world.now()
    assert timedelta(minutes=9) < left <= timedelta(minutes=10)
    assert terminal.run(*wanted, XDG_RUNTIME_DIR=runtime).out == ran.out
    # Another wish is another credential, and so is another caller's.
    assert terminal.run(*wanted[:-1], "9m", XDG_RUNTIME_DIR=runtime).out != ran.out
    assert leases(world, signed) == ["active", "active"]


def test_cached_credential_of_an_ended_lease_is_not_reused(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world)
    terminal = terminal_of(signed)
    wanted = ("get", dataset.slug, "--kind", "s3", "--format", "credential-process")
    first = terminal.run(*wanted, XDG_RUNTIME_DIR=runtime).out
    (lease,) = json.loads(terminal.run("lease", "list", "--json").out)["data"]["items"]
    assert terminal.run("lease", "revoke", lease["id"]).code in (0, 7)
    second = terminal.run(*wanted, XDG_RUNTIME_DIR=runtime)
    assert second.code == 0 and second.out != first
    assert leases(world, signed)[1] == "active"


def test_concurrent_credential_process_calls_share_one_lease(
    world: World, terminal_of: TerminalOf, runtime: str
) -> None:
    signed, dataset = pictures(world)
    terminal = terminal_of(signed)
    wanted = ("get", dataset.slug, "--kind", "s3", "--format", "credential-process")
    with ThreadPoolExecutor(6) as pool:
        ran = list(pool.map(lambda _: terminal.run(*wanted, XDG_RUNTIME_DIR=runtime), range(6)))
    assert {one.code for one in ran} == {0} and len({one.out for one in ran}) == 1
    assert leases(world, signed) == ["active"]


def test_credential_cache_readable_by_others_is_not_used(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world)
    terminal = terminal_of(signed)
    wanted = ("get", dataset.slug, "--kind", "s3", "--format", "credential-process")
    assert terminal.run(*wanted, XDG_RUNTIME_DIR=runtime).code == 0
    (file,) = Path(runtime).rglob("*.json")
    file.chmod(0o644)
    ran = terminal.run(*wanted, XDG_RUNTIME_DIR=runtime)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("guestkey: ") and "can be read by others" in ran.err
    file.chmod(0o600)
    file.write_text("{")
    assert terminal.run(*wanted, XDG_RUNTIME_DIR=runtime).code == 0, "what is damaged is as good as none"


def test_stale_factor_in_credential_process_exits_5_with_one_line(
    world: World, terminal_of: TerminalOf, runtime: str
) -> None:
    signed, dataset = pictures(world, factor_age=7200)
    terminal = terminal_of(signed)
    ran = terminal.run("get", dataset.slug, "--kind", "s3", "--format", "credential-process", XDG_RUNTIME_DIR=runtime)
    assert (ran.code, ran.out, ran.err.count("\n")) == (5, "", 1), ran
    assert ran.err.startswith("guestkey: ") and ran.err.endswith("Next: guestkey confirm\n")
    called = boto3_calls(profile(terminal, dataset) | {"XDG_RUNTIME_DIR": runtime}, world, 1)
    assert called.returncode != 0
    assert "Next: guestkey confirm" in called.stderr
    world.change(ApiToken, signed.caller.holder_id, factor_at=world.now())
    assert boto3_calls(profile(terminal, dataset) | {"XDG_RUNTIME_DIR": runtime}, world, 1).returncode == 0


def test_credential_process_never_prompts(world: World, terminal_of: TerminalOf, runtime: str) -> None:
    signed, dataset = pictures(world, factor_age=7200)
    terminal = terminal_of(signed)
    terminal.variables["XDG_RUNTIME_DIR"] = runtime
    ran = terminal.type("get", dataset.slug, "--kind", "s3", "--format", "credential-process", seconds=20)
    assert ran.code == 5, ran.out
    assert "Code from your authenticator" not in ran.out


def test_credential_process_denial_lists_every_reason_in_one_line(
    world: World, terminal_of: TerminalOf, runtime: str
) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES})
    ran = terminal_of(signed).run(
        "get", dataset.slug, "--kind", "s3", "--format", "credential-process", XDG_RUNTIME_DIR=runtime
    )
    assert (ran.code, ran.out, ran.err.count("\n")) == (3, "", 1), ran
    assert "grant" in ran.err and "Next: guestkey request new" in ran.err
    assert not list(Path(runtime).rglob("*.json"))


def test_program_can_write_if_the_rules_allow_it(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    slices = {"deidentified": PICTURES, "labels": PICTURES | {"prefix": "labels/"}}
    dataset = world.dataset(vendor, kind="s3", slices=slices, actions=("read", "write"))
    world.grant(dataset, signed)
    name = f"{dataset.slug}.json"
    put = f"import boto3, os; boto3.client('s3').put_object(Bucket='clinic', Key='labels/{name}', Body=b'x')"
    wanted = ("run", dataset.slug, "--slice", "labels")
    terminal = terminal_of(signed)
    refused = terminal.run(*wanted, "--", sys.executable, "-c", put)
    assert refused.code == 1 and "AccessDenied" in refused.err
    ran = terminal.run(*wanted, "--action", "write", "--", sys.executable, "-c", put)
    assert ran.code == 0, ran.err
    assert world.stack.store.client().get_object(Bucket="clinic", Key=f"labels/{name}")["Body"].read() == b"x"


def in_a_database(dataset: Dataset, name: str) -> Slice:
    """A slice of kind postgres beside those of the dataset."""
    return Slice(id=new_id("sl"), dataset_id=dataset.id, name=name, kind="postgres", binding=FULL, actions=["read"])


def test_kind_is_chosen_from_the_allowed_slice(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset = pictures(world)
    terminal = terminal_of(signed)
    # Of the same dataset, in a database; what an annotator is opened is still the pictures alone.
    world.add(
        Slice(
            id=new_id("sl"),
            dataset_id=dataset.id,
            name="full",
            kind="postgres",
            binding=FULL,
            actions=["read"],
            state="ready",
        )
    )
    ran = terminal.run("run", dataset.slug, "--", "sh", "-c", "echo $GUESTKEY_BUCKET")
    assert (ran.code, ran.out) == (0, "clinic\n"), ran.err
    # With this one, two are open: which is meant only the person knows.
    world.add(
        Slice(
            id=new_id("sl"),
            dataset_id=dataset.id,
            name="labels",
            kind="postgres",
            binding=FULL,
            actions=["read"],
            state="ready",
        )
    )
    torn = terminal.run("run", dataset.slug, "--", "true")
    assert (torn.code, torn.out) == (125, "")
    assert "deidentified (s3), full (postgres), labels (postgres)" in torn.err and "Next: " in torn.err
    assert terminal.run("run", dataset.slug, "--slice", "deidentified", "--", "true").code == 0
    assert terminal.run("run", dataset.slug, "--slice", "absent", "--", "true").code == 125
    assert leases(world, signed) == ["revoked", "revoked"]
