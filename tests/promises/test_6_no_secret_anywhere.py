"""Promise 6: no secret in any log, event, error or row: ours, OpenBao's or PostgreSQL's.

Real secrets are made on the real parts and then looked for, byte by byte, wherever anything is kept.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator

import pyotp
import pytest
import structlog

from broker.base.errors import GuestkeyError
from broker.identity import factors, sessions, sources, totp
from broker.models import Lease, Person
from tests.promises.test_5_a_code_works_once import with_app
from tests.support.objects import opened, readable
from tests.support.world import PICTURES, World


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Everything logged, by whichever logger."""
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    def keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        lines.append(repr(event))
        raise structlog.DropEvent

    handler, root, before = Keeping(level=0), logging.getLogger(), structlog.get_config()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    structlog.configure(processors=[structlog.processors.format_exc_info, keep], cache_logger_on_first_use=False)
    yield lines
    structlog.configure(**before)
    root.removeHandler(handler)
    root.setLevel(level)


def everything_in_rows(world: World) -> bytes:
    """Every row of every table of the broker, as text."""
    kept = []
    with world.admin("guestkey") as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'guestkey'").fetchall()
        for (table,) in tables:
            for (row,) in connection.execute(f'SELECT t::text FROM guestkey."{table}" t').fetchall():
                kept.append(str(row))
        for (leaf,) in connection.execute("SELECT leaf FROM guestkey.event").fetchall():
            kept.append(bytes(leaf).decode())
    return "\n".join(kept).encode()


def spelled(secret: str) -> list[bytes]:
    """How a secret could stand somewhere: plain, hex (PostgreSQL's bytea) or base64."""
    raw = secret.encode()
    return [raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")]


def test_canaries_are_found_nowhere(world: World, said: list[str]) -> None:
    signed, dataset, _ = world.guest()
    canaries = {"api token": signed.token}
    original = world.parts.vault.child_token

    def noting(*arguments: object, **named: object) -> object:
        made = original(*arguments, **named)  # type: ignore[arg-type]
        canaries["child token"] = made.token
        said.append(repr(made))
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.parts.vault, "child_token", noting)
        handed = world.issue(signed, dataset)
    assert handed.values is not None
    canaries["password"] = handed.values["password"]
    with world.connect(handed) as session:
        session.execute(f"SELECT count(*) FROM {handed.values['relation']}")
    said.append(repr(handed))

    person, secret = with_app(world)
    canaries["totp secret"] = secret
    totp.prove(world.parts, person.caller, pyotp.TOTP(secret).at(world.now()))
    for wrong in ("not-a-code-canary", "123456"):
        with pytest.raises(GuestkeyError) as error:
            totp.prove(world.parts, person.caller, wrong)
        said.append(repr(error.value))
    canaries["typed code"] = "not-a-code-canary"
    with world.database.transaction() as tx:
        codes = factors.make_recovery_codes(tx, person.caller, world.now())
        record = tx.get_one(Person, person.id)
        canaries["cookie"] = sessions.start(
            tx, record, source_id=record.source_id, lifetime=300, now=world.now(), address="127.0.0.1"
        )
    canaries["recovery code"] = codes[0]
    canaries["client secret"] = "client-secret-canary"
    wrapped = sources.wrap_client_secret(world.parts.vault, "ss_canary", canaries["client secret"])
    assert canaries["client secret"] not in wrapped
    world.change(Lease, handed.lease.id, expires_at=world.now())
    world.sweep()

    servers = world.stack.postgres
    said.append(repr(world.settings))
    places = {
        "rows": everything_in_rows(world),
        "our log": "\n".join(said).encode(),
        "OpenBao's log": world.stack.bao.log.read_bytes(),
        "OpenBao's audit log": world.stack.bao.audit_log.read_bytes(),
        "PostgreSQL's logs": b"".join(server.log.read_bytes() for server in (servers.records, servers.data)),
    }
    canaries["database password"] = servers.records.passwords["app"]
    assert len(said) > 5, "the log was listened to"
    assert dataset.slug.encode() in places["rows"], "the rows were read"
    assert handed.lease.id.encode() in places["OpenBao's audit log"], "the audit log was read"
    found = [
        (name, place)
        for name, secret_ in canaries.items()
        for place, content in places.items()
        if any(form in content for form in spelled(secret_))
    ]
    assert found == []


def test_canaries_of_an_object_store_are_found_nowhere(world: World, said: list[str]) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor), world.dataset(vendor, kind="s3", slices={"deidentified": PICTURES})
    world.grant(dataset, signed)
    handed = world.issue(signed, dataset, kind="s3")
    assert handed.values is not None
    canaries = {name: handed.values[name] for name in ("secret_access_key", "session_token")}
    assert readable(handed.values)
    # An address that is signed by the session is as good as the session.
    canaries["signature"] = (
        opened(handed.values).generate_presigned_url("get_object", {"Bucket": "clinic", "Key": "trials/0.json"})
    ).rpartition("X-Amz-Signature=")[2]
    said.append(repr(handed))
    world.change(Lease, handed.lease.id, expires_at=world.now())
    world.wait_sweeping(handed.lease.id, "expired")
    for identity in ("issuer", "ender"):
        canaries[identity] = world.stack.store.key(identity).secret_access_key
    places = {
        "rows": everything_in_rows(world),
        "our log": "\n".join(said).encode(),
        "OpenBao's log": world.stack.bao.log.read_bytes(),
        "OpenBao's audit log": world.stack.bao.audit_log.read_bytes(),
        "the store's log": world.stack.store.log.read_bytes(),
    }
    assert handed.lease.id.encode() in places["rows"], "the rows were read"
    assert len(said) > 5, "the log was listened to"
    found = [
        (name, place)
        for name, secret in canaries.items()
        for place, content in places.items()
        if any(form in content for form in spelled(secret))
    ]
    assert found == []
