"""`guestkey connect-backend s3`: an object store is tried, and its two long-term keys go to OpenBao."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from broker.base.database import Database
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.settings import Settings, said
from broker.kinds.s3.connection import S3Connection
from broker.kinds.s3.ending import policy_lock
from broker.kinds.s3.store import Key, Store
from broker.log import audit
from broker.operator.asking import ask_secret
from broker.operator.configuring import AsJson, load, plainly
from broker.operator.connect_backend import Talk
from broker.operator.connecting.connecting import CONNECTED
from broker.operator.connecting.keystore import operator
from broker.operator.connecting.place import checked_name
from broker.operator.connecting.stores import Proven, prove, read_key
from broker.runtime.parts import vault_of

_WAIT_SECONDS = 20.0
_AWS_WAIT_SECONDS = 120.0


def s3(
    name: Annotated[str | None, typer.Option(help="The name that slices use for it: lower case.")] = None,
    bucket: Annotated[str | None, typer.Option(help="A bucket for slices; the connection is tested with it.")] = None,
    role_arn: Annotated[str | None, typer.Option(help="The role whose sessions guests get.")] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="The store's address; left out: AWS.")] = None,
    sts_endpoint_url: Annotated[str | None, typer.Option(help="Of its STS, if that is another one.")] = None,
    region: Annotated[str, typer.Option(help="Its region.")] = "us-east-1",
    longest_session: Annotated[int, typer.Option(help="Longest session of the role, in seconds.")] = 3600,
    ca_file: Annotated[Path | None, typer.Option(help="Its authority's certificates, if not a public one.")] = None,
    kms_key: Annotated[
        list[str] | None, typer.Option(help="ARN of a KMS key that its buckets are encrypted with; may be repeated.")
    ] = None,
    issuer_key_file: Annotated[
        Path | None, typer.Option(help="File with id and secret, one per line, of the key that may assume the role.")
    ] = None,
    ender_key_file: Annotated[
        Path | None, typer.Option(help="File with id and secret of the key that may write bucket policies.")
    ] = None,
    operator_secret_id_file: Annotated[
        Path | None, typer.Option(help="Secret id of the identity guestkey-operator.")
    ] = None,
    only_check: Annotated[bool, typer.Option("--check", help="Only test it; nothing is stored.")] = False,
    wait: Annotated[float | None, typer.Option(help="Seconds to wait until a refusal takes effect.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Never ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Connect an object store with STS: prove that it holds a session to one prefix and can end it, keep its keys.

    Docs: docs/connect-s3.md says which role, keys and policies it needs.
    """
    with plainly("connect-backend s3", as_json=as_json) as out:
        talk = Talk(out, asks=sys.stdin.isatty() and not yes and not as_json)
        settings = load()
        name = checked_name(name or talk.ask("Name that slices use for it", "--name"))
        bucket = bucket or talk.ask("A bucket for slices", "--bucket")
        place = _place(
            role_arn=role_arn or talk.ask("ARN of the role guests get sessions of", "--role-arn"),
            endpoint_url=endpoint_url,
            sts_endpoint_url=sts_endpoint_url,
            region=region,
            longest_session=longest_session,
            ca_file=ca_file,
            kms_keys=kms_key or (),
        )
        issuer = _key(talk, "issuer", issuer_key_file)
        ender = _key(talk, "ender", ender_key_file)
        seconds = wait if wait is not None else _WAIT_SECONDS if endpoint_url else _AWS_WAIT_SECONDS
        found = prove(
            said(place), bucket, issuer, ender, seconds=seconds, told=talk.say, writing=_alone(settings, bucket)
        )
        place = place.model_copy(update={"ended_by": found.ended_by, "settles": found.settles})
        if not only_check:
            _keep(talk, settings, name, {"issuer": issuer, "ender": ender}, operator_secret_id_file)
            _record(settings, name, place, found)
        known = {**settings.connections("s3"), name: place}
        setting = {key: value.model_dump(exclude_none=True, mode="json") for key, value in known.items()}
        _told(talk, out, name, setting, connected=not only_check)


def _alone(settings: Settings, bucket: str) -> Callable[[Store], AbstractContextManager[object]]:
    """What keeps workers from writing a bucket's policy meanwhile; nothing where no worker's identity is known."""
    if settings.bao_ender is None:
        return lambda _: nullcontext()
    ender = vault_of(settings, "ender")
    return lambda store: policy_lock(ender, store.address, bucket)


def _place(**given: Any) -> S3Connection:
    try:
        return S3Connection(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("s") if first["loc"] else "role_arn"
        why = str(first["msg"]).removeprefix("Value error, ")
        raise Invalid(f"--{option.replace('_', '-')}: {why}.", field=f"/{option}") from error


def _key(talk: Talk, identity: str, file: Path | None) -> Key:
    option = f"{identity}_key_file"
    if file is not None:
        return read_key(file.read_text(), option)
    access_key_id = talk.ask(f"Access key id of the {identity}", f"--{option.replace('_', '-')}")
    return Key(access_key_id, ask_secret(f"Its secret access key ({identity})"))


def _keep(talk: Talk, settings: Settings, name: str, keys: dict[str, Key], secret_id_file: Path | None) -> None:
    file = secret_id_file or Path(talk.ask("File with the operator's secret id", "--operator-secret-id-file"))
    with operator(str(settings.bao_addr), settings.bao_ca_file, file) as store:
        for identity, key in keys.items():
            content = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
            store.keep_entry(f"{name}/s3-{identity}", content)


def _record(settings: Settings, name: str, place: S3Connection, found: Proven) -> None:
    database = Database(str(settings.database_url.get_secret_value()), pool_size=2, timeout=settings.database_timeout)
    details = {
        "kind": "s3",
        "endpoint": place.endpoint_url or "aws",
        "role": place.role_arn,
        "ended_by": found.ended_by,
    }
    try:
        with database.transaction() as tx:
            audit.record(tx, CONNECTED, actor="operator", subject=name, now=clock(tx), details=details)
    finally:
        database.close()


def _told(talk: Talk, out: Any, name: str, setting: dict[str, Any], *, connected: bool) -> None:
    if talk.as_json:
        out.told([], {"connection": name, "connected": connected, "s3_connections": setting})
        return
    if not connected:
        talk.say("Nothing was stored. Without --check the keys are stored in OpenBao, and this is the setting:")
    else:
        talk.say(f"The object store {name} is connected. Set this for web and worker:")
    typer.echo(f"GUESTKEY_S3_CONNECTIONS={json.dumps(setting)}")
