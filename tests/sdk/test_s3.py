"""boto3, fsspec and pyarrow with `guestkey`, on the real object store: credentials are replaced on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow.json
import pytest
from botocore.exceptions import ClientError
from pyarrow.fs import FileSelector, FSSpecHandler, PyFileSystem
from sqlalchemy import func, select

import guestkey
from broker.models import Dataset, Lease
from guestkey import Client, s3
from tests.sdk.conftest import ClientOf
from tests.support.data import PICTURES as HOW_MANY
from tests.support.world import PICTURES, Signed, World

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(autouse=True)
def only_pictures(world: World) -> None:
    """Whatever other tests of this worker wrote among the pictures is gone."""
    store = world.stack.store.client()
    known = {f"trials/{number}.json" for number in range(HOW_MANY)}
    for found in store.list_objects_v2(Bucket="clinic", Prefix="trials/").get("Contents", []):
        if found["Key"] not in known:
            store.delete_object(Bucket="clinic", Key=found["Key"])


def pictures(world: World) -> tuple[Signed, Dataset]:
    """Somebody who labels the pictures of a bucket: reads them in one slice, writes beside them in another."""
    vendor = world.vendor()
    signed = world.person(vendor)
    slices = {"deidentified": PICTURES, "labels": PICTURES | {"prefix": "labels/"}}
    dataset = world.dataset(vendor, kind="s3", slices=slices, actions=("read", "write"))
    world.grant(dataset, signed)
    return signed, dataset


def test_boto3_client_refreshes_expired_credentials(world: World, client_of: ClientOf) -> None:
    signed, dataset = pictures(world)
    place = s3.open_slice(client_of(signed), dataset.slug, slice="deidentified", lifetime=10)
    assert (place.bucket, place.prefix) == ("clinic", "trials/")
    first = place.credentials.current()
    while not first.over:
        listed = place.client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)
        assert listed["KeyCount"] == HOW_MANY
        time.sleep(0.5)
    assert place.client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)["KeyCount"] == HOW_MANY
    assert place.credentials.current().id != first.id
    with world.database.transaction() as tx:
        taken = tx.scalar(select(func.count()).where(Lease.person_id == signed.id))
    assert taken == 2, "one after the other, and not one a call"


def test_aws_environment_is_ignored(
    world: World, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    config = tmp_path / "config"
    config.write_text("[default]\naws_access_key_id = FOREIGN\nendpoint_url = http://x.invalid\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FOREIGN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    signed, dataset = pictures(world)
    place = s3.open_slice(client_of(signed), dataset.slug, slice="deidentified")
    key = place.session.get_credentials().get_frozen_credentials()
    assert key.access_key == place.credentials.current().values["access_key_id"] != "FOREIGN"
    assert place.client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix)["KeyCount"] == HOW_MANY


def test_store_refuses_objects_outside_the_slice(world: World, client_of: ClientOf) -> None:
    signed, dataset = pictures(world)
    place = s3.open_slice(client_of(signed), dataset.slug, slice="deidentified")
    with pytest.raises(ClientError, match=r"AccessDenied|Forbidden|403"):
        place.client.get_object(Bucket=place.bucket, Key="secret.json")
    with pytest.raises(ClientError, match=r"AccessDenied|Forbidden|403"):
        place.client.put_object(Bucket=place.bucket, Key=place.prefix + "x", Body=b"x")


@pytest.fixture
def files(world: World, client_of: ClientOf) -> Iterator[tuple[Any, str]]:
    """A filesystem that may write labels, and the dataset's name."""
    signed, dataset = pictures(world)
    made = fsspec.filesystem("guestkey", client=client_of(signed), slice="labels", action="write")
    yield made, dataset.slug
    made.close()


@pytest.fixture
def reading(world: World, client_of: ClientOf) -> Iterator[tuple[Any, str]]:
    """A filesystem that may read pictures, and the dataset's name."""
    signed, dataset = pictures(world)
    made = fsspec.filesystem("guestkey", client=client_of(signed), slice="deidentified")
    yield made, dataset.slug
    made.close()


def test_fsspec_lists_and_reads(reading: tuple[Any, str]) -> None:
    files, name = reading
    assert files.ls(name, detail=False) == [f"{name}/{number}.json" for number in range(HOW_MANY)]
    assert files.ls(f"guestkey://{name}/", detail=False) == files.ls(name, detail=False)
    assert files.cat(f"{name}/0.json") == b'{"label": "cat"}'
    with files.open(f"guestkey://{name}/1.json") as file:
        file.seek(10)
        assert (file.read(4), file.size) == (b'"cat', 16)
    assert files.info(f"{name}/0.json")["size"] == 16
    assert files.isdir(name) and files.isfile(f"{name}/0.json") and not files.exists(f"{name}/absent")
    assert files.glob(f"{name}/*.json") == files.ls(name, detail=False)


def test_fsspec_distinguishes_missing_and_denied(reading: tuple[Any, str]) -> None:
    files, name = reading
    for ask in (files.info, files.ls, files.cat):
        with pytest.raises(FileNotFoundError):
            ask(f"{name}/absent")
    with pytest.raises(PermissionError), files.open(f"{name}/new", "wb") as file:
        file.write(b"x")
    # Beside the slice there is nothing, whatever the path looks like.
    assert not files.exists(f"{name}/../secret.json")
    for odd in ("", "guestkey://"):
        with pytest.raises(FileNotFoundError):
            files.ls(odd)
    with pytest.raises(OSError, match="Only whole files"):
        files.open(f"{name}/0.json", "ab")
    with pytest.raises(guestkey.NotFound):
        files.ls("no-such-dataset")


def test_pyarrow_reads_json_lines(reading: tuple[Any, str]) -> None:
    files, name = reading
    arrow = PyFileSystem(FSSpecHandler(files))
    assert len(arrow.get_file_info(FileSelector(name, recursive=True))) == HOW_MANY
    with arrow.open_input_stream(f"{name}/0.json") as stream:
        assert pyarrow.json.read_json(stream).to_pydict() == {"label": ["cat"]}


def test_fsspec_writes_whole_files_or_none(world: World, files: tuple[Any, str]) -> None:
    writing, name = files
    path = f"{name}/{time.monotonic_ns()}"
    with writing.open(f"{path}/small", "wb") as file:
        file.write(b"x" * 10)
    big = bytes(range(256)) * (80 * 1024)
    with writing.open(f"{path}/big", "wb") as file:
        for at in range(0, len(big), 1 << 20):
            file.write(big[at : at + (1 << 20)])
    with writing.open(f"{path}/empty", "wb"):
        pass
    broken_off = pytest.raises(RuntimeError, match="half")
    for size in (10, 9 << 20):
        with broken_off, writing.open(f"{path}/half", "wb") as file:
            file.write(b"x" * size)
            raise RuntimeError("half")
    stored = {
        item["Key"].rpartition("/")[2]: item["Size"]
        for item in world.stack.store.client().list_objects_v2(
            Bucket="clinic", Prefix=f"labels/{path.partition('/')[2]}/"
        )["Contents"]
    }
    assert stored == {"small": 10, "big": len(big), "empty": 0}


def test_closing_revokes_the_lease(world: World, client_of: ClientOf) -> None:
    signed, dataset = pictures(world)
    client: Client = client_of(signed)
    files = fsspec.filesystem("guestkey", client=client, slice="deidentified")
    files.ls(dataset.slug)
    lease = files._places[dataset.slug].credentials.current()
    files.close()
    world.wait_for(lease.id, "revoked")
