"""From the release before to the one after, with a replica of each on the same records.

`releases/` holds the release before as it was shipped: its wheel. When a release is made, its wheel takes that one's
place; before the first it is of the day when all migrations were made one. The release after is this code with one
more migration, so that there always is one to go through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import httpx
import pytest

from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.kinds.settings import load_settings
from broker.leases import reconciling
from broker.models import Lease
from broker.runtime.parts import Parts
from tests.support.data import make_clinic
from tests.support.waiting import answered
from tests.support.world import Signed, World

RELEASES = Path(__file__).with_name("releases")
HERE = Path(__file__).parents[2]
NEXT = """
from alembic import op

revision = "9999_next"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE guestkey.lease ADD COLUMN weather varchar(64) NOT NULL DEFAULT 'fair'")
    op.execute("CREATE TABLE guestkey.weather (id varchar(40) PRIMARY KEY)")
    op.execute("GRANT SELECT, INSERT ON guestkey.weather TO guestkey_app")
"""
BOOTSTRAP = ["bootstrap", "--issuer", "https://issuer.example", "--client-id", "guestkey", "--unchecked"]


class Replica:
    """A replica of one release, as a process; `code` is where it lies: Python looks first where it starts."""

    def __init__(self, stack: Stack, public: int, code: Path) -> None:
        self.port = free_port()
        self._host = {"Host": f"localhost:{public}"}
        self._environment = environment(stack, public)
        self._code = code

    @contextmanager
    def serving(self) -> Iterator[Replica]:
        """Run it."""
        command = [*guestkey(), "serve", "--port", str(self.port)]
        child = subprocess.Popen(command, env=self._environment, cwd=self._code, stderr=subprocess.DEVNULL)
        try:
            answered(f"http://127.0.0.1:{self.port}/healthz", child, headers=self._host)
            yield self
        finally:
            child.terminate()
            child.wait(60)

    def get(self, path: str, signed: Signed | None = None) -> httpx.Response:
        """Ask it, by the name everybody uses."""
        headers = self._host | (signed.headers if signed else {})
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=10)

    def issue(self, signed: Signed, slug: str) -> httpx.Response:
        """Ask for a credential."""
        body = {"dataset": slug, "slice": "deidentified", "kind": "postgres", "lifetime": 300}
        url = f"http://127.0.0.1:{self.port}/api/v1/leases"
        return httpx.post(url, headers=self._host | signed.headers, json=body, timeout=20)


@contextmanager
def working(stack: Stack, public: int, code: Path) -> Iterator[None]:
    """Run a worker of one release."""
    child = subprocess.Popen(
        [*guestkey(), "worker"], env=environment(stack, public), cwd=code, stderr=subprocess.DEVNULL
    )
    try:
        yield
        assert child.poll() is None, "it gave up"
    finally:
        child.terminate()
        child.wait(60)


def run(arguments: list[str], stack: Stack, public: int, code: Path) -> None:
    """Run a command of one release to its end."""
    subprocess.run(
        [*guestkey(), *arguments], env=environment(stack, public), cwd=code, check=True, timeout=60, capture_output=True
    )


def guestkey() -> list[str]:
    return [sys.executable, "-c", "from broker.operator.main import app; app(prog_name='guestkey')"]


def environment(stack: Stack, public: int) -> dict[str, str]:
    """A process's environment."""
    made = {**os.environ, **stack.environment(), "GUESTKEY_PUBLIC_URL": f"http://localhost:{public}"}
    made["GUESTKEY_OWNER_DATABASE_URL"] = stack.postgres.url("owner", "guestkey")
    return made


@pytest.fixture(scope="module")
def before() -> Iterator[Path]:
    """The release before, unpacked."""
    (wheel,) = RELEASES.glob("guestkey-*.whl")
    with TemporaryDirectory(prefix="guestkey-test-") as folder:
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
        asked = [sys.executable, "-c", "import broker; print(broker.__file__)"]
        found = subprocess.run(asked, cwd=folder, check=True, capture_output=True, text=True, timeout=30).stdout
        assert Path(found.strip()).is_relative_to(folder), "processes started there run other code"
        yield Path(folder)


@pytest.fixture(scope="module")
def after() -> Iterator[Path]:
    """The release after: this code, and a migration that adds a column and a table."""
    with TemporaryDirectory(prefix="guestkey-test-") as folder:
        shutil.copytree(HERE / "broker", Path(folder) / "broker", ignore=shutil.ignore_patterns("__pycache__"))
        versions = Path(folder) / "broker" / "migrations" / "versions"
        newest = max(file.stem for file in versions.glob("*.py"))
        (versions / "9999_next.py").write_text(NEXT.format(newest=newest))
        yield Path(folder)


@pytest.fixture
def stack() -> Iterator[Stack]:
    """OpenBao and PostgreSQL, with the records as the release before makes them: none yet."""
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        running = Stack(Path(folder))
        running.start()
        try:
            make_clinic(running.postgres.url("postgres", "data"))
            yield running
        finally:
            running.stop()


def test_two_releases_side_by_side(stack: Stack, before: Path, after: Path) -> None:
    public = free_port()
    run(["migrate"], stack, public, before)
    run(BOOTSTRAP, stack, public, before)
    with Replica(stack, public, before).serving() as old:
        assert old.get("/readyz").json()["ready"]
        with Replica(stack, public, after).serving() as early:
            assert list(early.get("/readyz").json()["missing"]) == ["migrations"]
        run(["migrate"], stack, public, after)
        with patch.dict(os.environ, stack.environment()):
            settings = load_settings()
        parts, ender = Parts.build(settings, identity="issuer"), Parts.build(settings, identity="ender")
        world = World(stack, settings, parts, ender)
        signed, dataset, _ = world.guest()
        with Replica(stack, public, after).serving() as new:
            assert [replica.get("/readyz").json()["ready"] for replica in (old, new)] == [True, True]
            issued = [replica.issue(signed, dataset.slug) for replica in (old, new, old, new)]
            assert [answer.status_code for answer in issued] == [201] * 4, [answer.text for answer in issued]
            for replica in (old, new):
                assert replica.get("/api/v1/me", signed).json()["id"] == signed.id
                assert len(replica.get("/api/v1/leases", signed).json()["items"]) == 4
            leases = [answer.json()["lease"]["id"] for answer in issued]
            with working(stack, public, before):
                # Alone at first, then beside one of the new: whichever of them claims it ends it.
                for lease_id in leases[:2]:
                    world.change(Lease, lease_id, expires_at=world.now())
                    world.wait_for(lease_id, "expired", seconds=20)
                for lease_id in leases[2:]:
                    world.change(Lease, lease_id, expires_at=world.now())
                    world.wait_sweeping(lease_id, "expired")
        # The new ones are gone again: an upgrade can be called off.
        last = old.issue(signed, dataset.slug)
        assert last.status_code == 201
        world.change(Lease, last.json()["lease"]["id"], expires_at=world.now())
        world.wait_sweeping(last.json()["lease"]["id"], "expired")
        assert reconciling.reconcile(ender).strays == []
        parts.close()
        ender.close()
