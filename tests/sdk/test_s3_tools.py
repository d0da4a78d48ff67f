"""What docs/sdk.md says of tools for S3, with each: a guest lists, reads, writes, and is refused after the end."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow.dataset
import pyarrow.fs
import pytest
from minio import Minio
from minio.error import S3Error

from broker.models import Lease
from tests.faults.guests import guest, labeller
from tests.support.data import PICTURES
from tests.support.world import World

Values = Mapping[str, str]
HANDED_IN = "trials/handed-in.json"
CONTENT = b'{"label": "dog"}'


@dataclass(frozen=True)
class Tool:
    """A tool with a guest's credential: what it does with a slice, and how it says that it may not."""

    lists: Callable[[], list[str]]
    reads: Callable[[], bytes]
    writes: Callable[[], object]
    refused: type[Exception]


def minio_client(values: Values, region: str | None) -> Minio:
    """minio-py with what was handed over."""
    url = urlsplit(values["endpoint_url"])
    return Minio(
        url.netloc,
        access_key=values["access_key_id"],
        secret_key=values["secret_access_key"],
        session_token=values["session_token"],
        region=region,
        secure=url.scheme == "https",
    )


def minio(values: Values) -> Tool:
    """minio-py: without the region it would ask the bucket for it, which a guest may not."""
    client = minio_client(values, values["region"])
    return Tool(
        lambda: [str(found.object_name) for found in client.list_objects("clinic", prefix="trials/", recursive=True)],
        lambda: _body(client.get_object("clinic", "trials/0.json")),
        lambda: client.put_object("clinic", HANDED_IN, io.BytesIO(CONTENT), len(CONTENT)),
        S3Error,
    )


def _body(answer: Any) -> bytes:
    try:
        return bytes(answer.data)
    finally:
        answer.close()
        answer.release_conn()


def pyarrow_(values: Values) -> Tool:
    """pyarrow's own file system."""
    files = filesystem(values)

    def write() -> None:
        with files.open_output_stream(f"clinic/{HANDED_IN}") as out:
            out.write(CONTENT)

    def read() -> bytes:
        with files.open_input_file("clinic/trials/0.json") as found:
            return bytes(found.read())

    selector = pyarrow.fs.FileSelector("clinic/trials", recursive=True)
    return Tool(
        lambda: [found.path.removeprefix("clinic/") for found in files.get_file_info(selector)], read, write, OSError
    )


def filesystem(values: Values) -> Any:
    """See docs/sdk.md."""
    url = urlsplit(values["endpoint_url"])
    return pyarrow.fs.S3FileSystem(
        access_key=values["access_key_id"],
        secret_key=values["secret_access_key"],
        session_token=values["session_token"],
        region=values["region"],
        endpoint_override=url.netloc,
        scheme=url.scheme,
    )


class Refused(Exception):
    """What rclone says when it fails."""


def rclone(values: Values, *options: str) -> Tool:
    """Rclone with the variables of `guestkey run`."""
    variables = {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_ENDPOINT": values["endpoint_url"],
        "RCLONE_S3_REGION": values["region"],
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
        "RCLONE_S3_NO_HEAD": "true",
        "AWS_ACCESS_KEY_ID": values["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": values["secret_access_key"],
        "AWS_SESSION_TOKEN": values["session_token"],
        "PATH": os.environ["PATH"],
    }

    def run(*words: str, sent: bytes = b"") -> bytes:
        command = ["rclone", "--retries", "1", "--low-level-retries", "1", *options, *words]
        ran = subprocess.run(command, env=variables, input=sent, capture_output=True, timeout=60, check=False)
        if ran.returncode:
            assert b"403" in ran.stderr or b"AccessDenied" in ran.stderr, ran.stderr.decode()
            raise Refused(ran.stderr.decode())
        return ran.stdout

    return Tool(
        lambda: [f"trials/{line}" for line in run("lsf", "--files-only", ":s3:clinic/trials/").decode().split()],
        lambda: run("cat", ":s3:clinic/trials/0.json"),
        lambda: run("rcat", "--no-check-dest", f":s3:clinic/{HANDED_IN}", sent=CONTENT),
        Refused,
    )


@pytest.fixture
def owner(world: World) -> Iterator[Any]:
    """The store's owner; what was handed in is taken away afterwards."""
    s3 = world.stack.store.client()
    yield s3
    s3.delete_object(Bucket="clinic", Key=HANDED_IN)


def values_of(world: World, one: Any) -> tuple[Values, Callable[[], None]]:
    """What a guest was handed, and what ends its lease."""
    handed = one.issue(world, lifetime=300)

    def end() -> None:
        world.change(Lease, handed.lease.id, expires_at=world.now())
        world.wait_sweeping(handed.lease.id, "expired")

    return handed.values, end


@pytest.mark.parametrize("tool", [minio, pyarrow_, rclone])
def test_s3_tools_work_until_the_lease_ends(world: World, owner: Any, tool: Callable[[Values], Tool]) -> None:
    read, end_reading = values_of(world, guest(world, "s3"))
    written, end_writing = values_of(world, labeller(world))
    reader, writer = tool(read), tool(written)
    assert {f"trials/{number}.json" for number in range(PICTURES)} <= set(reader.lists())
    assert reader.reads() == b'{"label": "cat"}'
    writer.writes()
    assert owner.get_object(Bucket="clinic", Key=HANDED_IN)["Body"].read() == CONTENT
    for act in (reader.writes, writer.reads, writer.lists):
        with pytest.raises(reader.refused):
            act()
    end_reading()
    end_writing()
    for act in (reader.lists, reader.reads, writer.writes):
        with pytest.raises(reader.refused):
            act()


def test_minio_needs_a_region(world: World) -> None:
    values, _ = values_of(world, guest(world, "s3"))
    client = minio_client(values, None)
    with pytest.raises(S3Error, match="AccessDenied"):
        client.stat_object("clinic", "trials/0.json")


def test_pyarrow_reads_a_dataset_from_a_file_list(world: World) -> None:
    """From the folder it would ask for an object of the prefix' name, which a guest may not."""
    values, _ = values_of(world, guest(world, "s3"))
    files = filesystem(values)
    with pytest.raises(OSError, match="ACCESS_DENIED during HeadObject"):
        pyarrow.dataset.dataset("clinic/trials/", filesystem=files, format="json")
    found = [of for of in files.get_file_info(pyarrow.fs.FileSelector("clinic/trials", recursive=True)) if of.is_file]
    paths = [of.path for of in found if of.path.endswith(".json")]
    assert pyarrow.dataset.dataset(paths, filesystem=files, format="json").count_rows() == len(paths) >= PICTURES


def test_rclone_needs_no_check_option_for_write_only(world: World, owner: Any) -> None:
    values, _ = values_of(world, labeller(world))
    with pytest.raises(Refused):
        rclone(values, "--s3-no-head=false").writes()
    with pytest.raises(Refused):
        rclone(values, "--s3-no-check-bucket=false").writes()
    rclone(values).writes()
