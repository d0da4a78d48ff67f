"""Connecting an object store with STS: it is tried, and its two long-term keys go to OpenBao."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from broker.base.errors import Invalid
from broker.base.settings import said
from broker.kinds.connecting import Connected, ConnectingContext, checked_name
from broker.kinds.s3.connection import S3Connection
from broker.kinds.s3.ending import policy_lock
from broker.kinds.s3.proving import prove, read_key
from broker.kinds.s3.store import AccessKey, Store

_WAIT_SECONDS = 20.0
_AWS_WAIT_SECONDS = 120.0


def connect(
    desk: ConnectingContext,
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
    only_check: Annotated[bool, typer.Option("--check", help="Only test it; nothing is stored.")] = False,
    wait: Annotated[float | None, typer.Option(help="Seconds to wait until a refusal takes effect.")] = None,
) -> Connected:
    """Connect an object store with STS: prove that it holds a session to one prefix and can end it, keep its keys.

    Docs: docs/connect-s3.md says which role, keys and policies it needs.
    """
    name = checked_name(name or desk.ask("Name that slices use for it", "--name"))
    bucket = bucket or desk.ask("A bucket for slices", "--bucket")
    place = _place(
        role_arn=role_arn or desk.ask("ARN of the role guests get sessions of", "--role-arn"),
        endpoint_url=endpoint_url,
        sts_endpoint_url=sts_endpoint_url,
        region=region,
        longest_session=longest_session,
        ca_file=ca_file,
        kms_keys=kms_key or (),
    )
    keys = {"issuer": _key(desk, "issuer", issuer_key_file), "ender": _key(desk, "ender", ender_key_file)}
    seconds = wait if wait is not None else _WAIT_SECONDS if endpoint_url else _AWS_WAIT_SECONDS
    found = prove(
        said(place),
        bucket,
        keys["issuer"],
        keys["ender"],
        seconds=seconds,
        told=desk.say,
        writing=_alone(desk, bucket),
    )
    place = place.model_copy(update={"ended_by": found.ended_by, "settles": found.settles})
    if not only_check:
        with desk.keystore() as store:
            for identity, key in keys.items():
                content = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
                store.keep(f"{name}/s3-{identity}", content)
    details = {"endpoint": place.endpoint_url or "aws", "role": place.role_arn, "ended_by": found.ended_by}
    return Connected(name, "object store", place, connected=not only_check, details=details)


def _alone(desk: ConnectingContext, bucket: str) -> Callable[[Store], AbstractContextManager[object]]:
    """What keeps workers from writing a bucket's policy meanwhile; nothing where no worker's identity is known."""
    if desk.settings.bao_ender is None:
        return lambda _: nullcontext()
    ender = desk.ender()
    return lambda store: policy_lock(ender, store.address, bucket)


def _place(**given: Any) -> S3Connection:
    try:
        return S3Connection(**given)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("s") if first["loc"] else "role_arn"
        why = str(first["msg"]).removeprefix("Value error, ")
        raise Invalid(f"--{option.replace('_', '-')}: {why}.", field=f"/{option}") from error


def _key(desk: ConnectingContext, identity: str, file: Path | None) -> AccessKey:
    option = f"{identity}_key_file"
    if file is not None:
        return read_key(file.read_text(), option)
    access_key_id = desk.ask(f"Access key id of the {identity}", f"--{option.replace('_', '-')}")
    return AccessKey(access_key_id, desk.ask_secret(f"Its secret access key ({identity})"))
