"""A stack of its own for what must not happen to one that tests share: OpenBao sealed, OpenBao without disk."""

from __future__ import annotations

import os
import resource
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import requests

from broker.base.database import clock
from broker.embedded.stack import Stack
from broker.kinds.access_tokens import signing_keys
from broker.kinds.settings import load_settings
from broker.migrations import upgrade
from broker.runtime.parts import Parts, install
from tests.support.data import make_clinic, make_pictures
from tests.support.world import World

_TESTER = "guestkey-tester"
_MAY_SEAL = 'path "sys/seal" { capabilities = ["update", "sudo"] }'
# Past whatever OpenBao's own storage grows to here: the limit below strikes the audit file alone.
_FAR_OUT = 1 << 30


class House:
    """A world on a stack of its own, and somebody there who may seal OpenBao."""

    def __init__(self, folder: Path) -> None:
        self._secret_id = secrets.token_urlsafe(24)
        self.stack = Stack(folder)
        role = {"token_policies": [_TESTER], "token_no_default_policy": True, "token_ttl": "1h"}
        self.stack.bao._more = [
            (
                "tester",
                f"sys/policies/acl/{_TESTER}",
                {"policy": 'path "sys/seal" { capabilities = ["update", "sudo"] }'},
            ),
            ("tester-role", f"auth/approle/role/{_TESTER}", role),
            ("tester-id", f"auth/approle/role/{_TESTER}/role-id", {"role_id": _TESTER}),
            ("tester-secret", f"auth/approle/role/{_TESTER}/custom-secret-id", {"secret_id": self._secret_id}),
        ]
        self.stack.start()
        upgrade(self.stack.postgres.url("owner", "guestkey"))
        make_clinic(self.stack.postgres.url("postgres", "data"))
        make_pictures(self.stack.store.client())
        with patch.dict(os.environ, self.stack.environment()):
            self.settings = load_settings()

    def seal(self) -> None:
        """Seal OpenBao, as in an emergency."""
        login = {"role_id": _TESTER, "secret_id": self._secret_id}
        address = self.stack.bao.address
        answer = requests.post(f"{address}/v1/auth/approle/login", json=login, timeout=10)
        token = answer.json()["auth"]["client_token"]
        requests.put(f"{address}/v1/sys/seal", headers={"X-Vault-Token": token}, timeout=10).raise_for_status()
        end = time.monotonic() + 10
        # It says yes a moment before it is sealed.
        while not requests.get(f"{address}/v1/sys/seal-status", timeout=10).json()["sealed"]:
            assert time.monotonic() < end
            time.sleep(0.01)

    def unseal(self) -> None:
        """Unseal it: with a seal key at hand, a restart does."""
        self.stack.bao.stop()
        self.stack.bao.start()

    @contextmanager
    def world(self) -> Iterator[World]:
        """The world of processes that start now."""
        parts, ender = (Parts.build(self.settings, identity=identity) for identity in ("issuer", "ender"))
        with parts.database.transaction() as tx:
            install(tx, clock(tx))
        forget_keys()
        try:
            yield World(self.stack, self.settings, parts, ender)
        finally:
            forget_keys()
            parts.close()
            ender.close()

    @contextmanager
    def full_disk(self, *, room: int = 0) -> Iterator[None]:
        """Let OpenBao's audit file take no more than `room` further bytes, as on a disk that is full.

        Its own storage goes on: the audit file alone has grown beyond the limit, without taking that much disk.
        """
        audit, pid = self.stack.bao.audit_log, self.stack.bao.pid
        assert pid is not None
        if audit.stat().st_size < _FAR_OUT:
            os.truncate(audit, _FAR_OUT)
        before: Any = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (audit.stat().st_size + room, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def audited(self) -> list[bytes]:
        """The lines of the audit file since it was last at its limit."""
        with self.stack.bao.audit_log.open("rb") as file:
            file.seek(min(self.stack.bao.audit_log.stat().st_size, _FAR_OUT))
            return [line for line in file.read().splitlines(keepends=True) if line.strip(b"\0\n")]


def forget_keys() -> None:
    """This process has looked at the keys of another house."""
    signing_keys.__init__()  # type: ignore[misc]


@contextmanager
def own_house() -> Iterator[House]:
    """Start one, and stop it."""
    with TemporaryDirectory(prefix="guestkey-test-", ignore_cleanup_errors=True) as folder:
        house = House(Path(folder))
        try:
            yield house
        finally:
            house.stack.stop()
