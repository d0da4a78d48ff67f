"""Connecting an object store with STS: it is tried, and its two long-term keys go to OpenBao.

Before slices may live there it is proven that the store holds a session to its policy, and that it can end one.
Everything is tried with a session as a guest would get it, on a prefix where nothing lies.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from broker.base.errors import Conflict, Invalid
from broker.base.settings import said
from broker.kinds.connecting import Connected, ConnectingContext, checked_name
from broker.kinds.s3.binding import Denial, S3Binding, denied_in, lapses, with_denied
from broker.kinds.s3.connection import S3Connection
from broker.kinds.s3.ending import policy_lock
from broker.kinds.s3.kind import SHORTEST_SESSION, folds_case, opens
from broker.kinds.s3.store import AccessKey, Store, StoreRefused

KEYS = ("aws:userid", "aws:username")
_POLL_SECONDS = 0.25
# In force a moment after it bit once is not in force everywhere: what was measured is multiplied.
_MARGIN = 3.0
_LEAST_SETTLES = 1.0
AWS_SETTLES = 120.0
_WAIT_SECONDS = 20.0
_AWS_WAIT_SECONDS = 120.0
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


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
    way, settles = _prove(desk, said(place), bucket, keys["issuer"], keys["ender"], seconds)
    place = place.model_copy(update={"ended_by": way, "settles": settles})
    if not only_check:
        with desk.keystore() as store:
            for identity, key in keys.items():
                content = {"access_key_id": key.access_key_id, "secret_access_key": key.secret_access_key}
                store.keep(f"{name}/s3-{identity}", content)
    details = {"endpoint": place.endpoint_url or "aws", "role": place.role_arn, "ended_by": way}
    return Connected(name, "object store", place, connected=not only_check, details=details)


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
        # The id on the first line, the secret on the second.
        lines = file.read_text().split()
        if len(lines) != 2:
            raise Invalid(
                "A key's file has two lines: the access key id, and the secret access key.", field=f"/{option}"
            )
        return AccessKey(*lines)
    access_key_id = desk.ask(f"Access key id of the {identity}", f"--{option.replace('_', '-')}")
    return AccessKey(access_key_id, desk.ask_secret(f"Its secret access key ({identity})"))


def _prove(
    desk: ConnectingContext, place: Mapping[str, str], bucket: str, issuer: AccessKey, ender: AccessKey, seconds: float
) -> tuple[str, float]:
    """Try a session as a hostile guest would, then end it. What is written to the bucket's policy is taken out again.

    Returns how the store ends a session ("nothing" if it cannot), and how many seconds that takes.

    Args:
        seconds: how long to wait for a refusal to bite, for each way of refusing.
    """
    say = desk.say
    binding = S3Binding.parse({"connection": "probe", "bucket": bucket, "prefix": f"guestkey-{secrets.token_hex(6)}/"})
    for identity, key in (("issuer", issuer), ("ender", ender)):
        if _lists(Store(place, key), bucket, ""):
            say(f"! The {identity}'s key can list the bucket itself. It needs no right to data: take that away.")
    guest, name = _open(place, issuer, binding)
    _confined(guest, binding)
    say("A session sees its prefix and nothing beside it; it can neither write there nor read the bucket's policy.")
    if folds_case(guest, binding):
        say(
            "! This store compares names in a session's policy without regard to case: a guest of trials/ reaches"
            " TRIALS/, too. A slice whose prefix has another spelling in its bucket is refused; begin none there later."
        )
    _check_encryption(desk, place, Store(place, ender), bucket)
    _check_uploads(desk, Store(place, ender), bucket)

    def is_refused() -> bool:
        return not guest.may(lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=binding.prefix))

    # AWS names a session in one way, those who follow it mostly in the other.
    for way in KEYS if not place.get("endpoint_url") else KEYS[::-1]:
        took = _refused_within(desk, Store(place, ender), bucket, name, way, is_refused, seconds)
        if took is not None:
            say(f"A session was ended: the bucket's policy refused it by {way} after {took:.1f} s.")
            least = _LEAST_SETTLES if place.get("endpoint_url") else AWS_SETTLES
            return way, max(least, round(took * _MARGIN, 1))
    say("! This store cannot end a session: each lives on to its own end, 15 minutes at the least.")
    return "nothing", 0.0


def _open(place: Mapping[str, str], issuer: AccessKey, binding: S3Binding) -> tuple[Store, str]:
    name = f"guestkey-probe-{secrets.token_hex(6)}"
    try:
        opened = Store(place, issuer).open(name, binding, "read", SHORTEST_SESSION)
    except StoreRefused as error:
        raise Conflict(
            f"The store refuses to open a session of the role: {error.code[:60]}.",
            advice="The role's trust policy must name the issuer, and the issuer be allowed sts:AssumeRole on it.",
        ) from error
    if opened.name != name:
        raise Conflict("The store opens sessions under another name than asked for: they could not be told apart.")
    return Store(place, opened.key), name


def _confined(guest: Store, binding: S3Binding) -> None:
    bucket = binding.bucket
    if not _lists(guest, bucket, binding.prefix):
        raise Conflict(
            f"A session cannot list {bucket}.",
            advice="Let the role's own policy read and list the bucket; see docs/connect-s3.md.",
        )
    beyond: dict[str, Callable[[Any], object]] = {
        "list the whole bucket": lambda s3: s3.list_objects_v2(Bucket=bucket, MaxKeys=1),
        "list the prefix above": lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix="guestkey-", MaxKeys=1),
        "read beside its prefix": lambda s3: s3.get_object(Bucket=bucket, Key=f"{binding.prefix[:-1]}2/nothing"),
        "write": lambda s3: s3.put_object(Bucket=bucket, Key=f"{binding.prefix}probe", Body=b""),
        "read the bucket's policy": lambda s3: s3.get_bucket_policy(Bucket=bucket),
    }
    for what, act in beyond.items():
        if opens(guest, act):
            raise Conflict(
                f"A session held to one prefix could {what}.",
                advice="This store does not heed session policies: slices cannot live there.",
            )


def _lists(store: Store, bucket: str, prefix: str) -> bool:
    try:
        return store.may(lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1))
    except StoreRefused as error:
        raise Invalid(f"The store shows no bucket {bucket}: {error.code[:60]}.", field="/bucket") from error


def _refused_within(
    desk: ConnectingContext,
    store: Store,
    bucket: str,
    name: str,
    key: str,
    is_refused: Callable[[], bool],
    seconds: float,
) -> float | None:
    """Refuse a session in the bucket's policy; after how many seconds that bit, or None. The policy is put back."""

    def writing() -> AbstractContextManager[object]:
        """Keeps workers from writing the policy meanwhile; nothing where no worker's identity is known."""
        return nullcontext() if desk.settings.bao_ender is None else policy_lock(desk.ender(), store.address, bucket)

    until = lapses((datetime.now(UTC) + timedelta(seconds=SHORTEST_SESSION)).timestamp())
    try:
        with writing():
            before = store.policy(bucket).document
            denied = {**denied_in(before), name: Denial(until)}
            store.put_policy(bucket, with_denied(before, bucket, key, denied, partition=store.partition))
        began = monotonic()
        try:
            while monotonic() - began < seconds:
                if is_refused():
                    return monotonic() - began
                sleep(_POLL_SECONDS)
            return None
        finally:
            with writing():
                after = store.policy(bucket).document
                kept = {handle: denial for handle, denial in denied_in(after).items() if handle != name}
                store.put_policy(bucket, with_denied(after, bucket, key, kept, partition=store.partition))
    except StoreRefused as error:
        raise Conflict(
            f"The store does not let the ender's key change the bucket's policy: {error.code[:60]}.",
            advice="Allow it s3:GetBucketPolicy, s3:PutBucketPolicy and s3:DeleteBucketPolicy on the buckets.",
        ) from error


def _check_encryption(desk: ConnectingContext, place: Mapping[str, str], ender: Store, bucket: str) -> None:
    """Refuse a bucket that is encrypted with a KMS key no session would have a right to."""
    try:
        keys = ender.bucket_keys(bucket)
    except StoreRefused as error:
        if error.code in ("NotImplemented", "MethodNotAllowed"):
            desk.say("The store does not say how a bucket is encrypted.")
            return
        raise Conflict(
            f"The store does not let the ender's key see how the bucket is encrypted: {error.code[:60]}.",
            advice="Allow it s3:GetEncryptionConfiguration on the buckets.",
        ) from error
    given = place.get("kms_keys", "").split()
    address = place.get("endpoint_url")
    at_aws = address is None or (urlsplit(address).hostname or "").endswith(_AWS)
    unknown = unopened(keys, given, at_aws=at_aws)
    if unknown is not None:
        raise Conflict(
            f"The bucket is encrypted with the KMS key {unknown or 'of the account (aws/s3)'}, and no session would"
            " have a right to it: a guest's first read would be refused.",
            advice=f"Connect with --kms-key {unknown if unknown.startswith('arn:') else 'ARN'}, and allow the role"
            " kms:Decrypt and kms:GenerateDataKey on it; see docs/connect-s3.md.",
        )
    if keys and not given:
        desk.say("The bucket is encrypted with a key of the store's own KMS, which it uses by itself.")
    if given:
        desk.say("Sessions get the right to the KMS key through the store. It is tried when a slice is registered.")


def unopened(keys: Iterable[str], given: Iterable[str], *, at_aws: bool) -> str | None:
    """The first of a bucket's keys that sessions need a right to and would not get; None if there is none.

    At AWS they need one to every key, and elsewhere to those that lie in AWS. A key's alias names another one, and we
    cannot ask which: there, any key that is given is taken to be meant.

    Args:
        keys: as the bucket names them: ARN, id, alias, or "" for the account's own.
        given: ARNs.
    """
    known = {arn: arn.rpartition("/")[2] for arn in given}
    for key in keys:
        if not at_aws and not key.startswith("arn:"):
            continue
        named = bool(key) and "alias/" not in key
        if not (key in known or key in known.values() if named else known):
            return key
    return None


def _check_uploads(desk: ConnectingContext, ender: Store, bucket: str) -> None:
    """Say so where nothing ever aborts uploads in parts that a guest began and did not complete."""
    advice = "docs/connect-s3.md has a rule that aborts them after a day."
    try:
        if not ender.aborts_uploads(bucket):
            desk.say(f"! Uploads in parts that a guest leaves unfinished stay in this bucket for ever. {advice}")
    except StoreRefused as error:
        desk.say(f"! Whether unfinished uploads are aborted cannot be seen ({error.code[:60]}). {advice}")
