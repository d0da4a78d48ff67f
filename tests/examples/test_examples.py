"""Every example runs as it is, on the real servers, and leaves no lease behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from broker.models import Dataset, Lease
from tests.support.world import PICTURES, Signed, World
from tests.web.conftest import Replica

pytestmark = pytest.mark.usefixtures("worker")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
POSTGRES = ("keep_a_lease.py", "sqlalchemy_pool.py", "psql_service.sh")
S3 = {
    "boto3_objects.py": 'first bytes: b\'{"label": "cat"}',
    "arrow_table.py": "2 rows of picture, label",
    "credential_process.py": "2 objects below s3://clinic/scans/",
}


def run(name: str, dataset: Dataset, signed: Signed, replica: Replica, home: Path) -> str:
    """What an example prints."""
    file = EXAMPLES / name
    command = [sys.executable, file] if file.suffix == ".py" else [file]
    done = subprocess.run(
        [*command, dataset.slug],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "GUESTKEY_URL": replica.url,
            "GUESTKEY_TOKEN": signed.token,
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ended(world: World, signed: Signed) -> int:
    """How many leases somebody had, once all of them have ended."""
    end = time.monotonic() + 15
    while True:
        with world.database.transaction() as tx:
            states = list(tx.scalars(select(Lease.state).where(Lease.person_id == signed.id)))
        if set(states) <= {"revoked", "expired"}:
            return len(states)
        assert time.monotonic() < end, states
        time.sleep(0.1)


@pytest.mark.parametrize("name", POSTGRES)
def test_postgres_example_runs(world: World, replica: Replica, tmp_path: Path, name: str) -> None:
    signed, dataset, _ = world.guest()
    printed = run(name, dataset, signed, replica, tmp_path)
    assert ("gk_" in printed and "slices" in printed) or "rows, as gk_" in printed, printed
    assert ended(world, signed) >= 1


@pytest.mark.parametrize("name", S3)
def test_s3_example_runs(world: World, replica: Replica, tmp_path: Path, name: str) -> None:
    store = world.stack.store.client()
    store.put_object(Bucket="clinic", Key="scans/0.json", Body=b'{"label": "cat"}')
    lines = b'{"picture": 0, "label": "cat"}\n{"picture": 1, "label": "dog"}\n'
    store.put_object(Bucket="clinic", Key="scans/labels.jsonl", Body=lines)
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES | {"prefix": "scans/"}})
    world.grant(dataset, signed)
    assert S3[name] in run(name, dataset, signed, replica, tmp_path)
    if name != "credential_process.py":
        # That one leaves its lease to the next call, which is what AWS's tools want.
        assert ended(world, signed) == 1


@pytest.mark.parametrize("name", S3)
def test_denied_example_prints_no_traceback(world: World, replica: Replica, tmp_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="no such dataset") as caught:
        run(name, Dataset(slug="nonesuch"), world.person(world.vendor()), replica, tmp_path)
    assert "Traceback" not in str(caught.value)


def test_every_example_is_tested_and_in_the_readme() -> None:
    there = {file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".sh")} - {"__init__.py"}
    assert there == {*POSTGRES, *S3}
    named = (EXAMPLES / "README.md").read_text()
    assert not [name for name in there if f"]({name})" not in named]
