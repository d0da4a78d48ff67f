"""Proving an object store before slices may live there: does it hold a session to its policy, and can it end one?

Everything is tried with a session as a guest would get it, on a prefix where nothing lies.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

from broker.base.errors import Conflict, Invalid
from broker.kinds.s3.binding import S3Binding
from broker.kinds.s3.buckets import readable, tidied
from broker.kinds.s3.policy import Denial, denied_in, lapses, with_denied
from broker.kinds.s3.prefix_check import SHORTEST_SESSION, folds_case, opens
from broker.kinds.s3.store import AccessKey, Store, StoreRefused

KEYS = ("aws:userid", "aws:username")
_POLL_SECONDS = 0.25
# In force a moment after it bit once is not in force everywhere: what was measured is multiplied.
_MARGIN = 3.0
_LEAST_SETTLES = 1.0
AWS_SETTLES = 120.0


@dataclass(frozen=True, slots=True)
class Proven:
    """What a store can do: how it ends a session ("nothing" if it cannot), and how many seconds that takes."""

    ended_by: str
    settles: float


def prove(
    place: Mapping[str, str],
    bucket: str,
    issuer: AccessKey,
    ender: AccessKey,
    *,
    seconds: float,
    told: Callable[[str], None],
    writing: Callable[[Store], AbstractContextManager[object]],
) -> Proven:
    """Try a session as a hostile guest would, then end it. What is written to the bucket's policy is taken out again.

    Args:
        seconds: how long to wait for a refusal to bite, for each way of refusing.
        writing: held while the bucket's policy is read and written: a worker may be refusing sessions there.

    Raises:
        Conflict: the store lets a session see or do more than its policy says, or refuses one of the keys.
        BackendDown: it does not answer.
    """
    binding = S3Binding.parse({"connection": "probe", "bucket": bucket, "prefix": f"guestkey-{secrets.token_hex(6)}/"})
    _narrow("issuer", Store(place, issuer), bucket, told)
    _narrow("ender", Store(place, ender), bucket, told)
    guest, name = _open(place, issuer, binding)
    _confined(guest, binding)
    told("A session sees its prefix and nothing beside it; it can neither write there nor read the bucket's policy.")
    if folds_case(guest, binding):
        told(
            "! This store compares names in a session's policy without regard to case: a guest of trials/ reaches"
            " TRIALS/, too. A slice whose prefix has another spelling in its bucket is refused; begin none there later."
        )
    readable(place, Store(place, ender), bucket, told)
    tidied(Store(place, ender), bucket, told)
    refused = (name, lambda: not guest.may(lambda s3: s3.list_objects_v2(Bucket=bucket, Prefix=binding.prefix)))
    # AWS names a session in one way, those who follow it mostly in the other.
    for key in KEYS if not place.get("endpoint_url") else KEYS[::-1]:
        took = _refused_within(Store(place, ender), binding.bucket, refused, key, seconds, writing)
        if took is not None:
            told(f"A session was ended: the bucket's policy refused it by {key} after {took:.1f} s.")
            least = _LEAST_SETTLES if place.get("endpoint_url") else AWS_SETTLES
            return Proven(key, max(least, round(took * _MARGIN, 1)))
    told("! This store cannot end a session: each lives on to its own end, 15 minutes at the least.")
    return Proven("nothing", 0.0)


def _narrow(identity: str, store: Store, bucket: str, told: Callable[[str], None]) -> None:
    """Warn of a long-term key that can do more than its work."""
    if _lists(store, bucket, ""):
        told(f"! The {identity}'s key can list the bucket itself. It needs no right to data: take that away.")


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
    store: Store,
    bucket: str,
    refused: tuple[str, Callable[[], bool]],
    key: str,
    seconds: float,
    writing: Callable[[Store], AbstractContextManager[object]],
) -> float | None:
    """Refuse a session in the bucket's policy; after how many seconds that bit, or None. The policy is put back.

    Args:
        refused: the session's name, and whether it is refused by now.
    """
    name, is_refused = refused
    until = lapses((datetime.now(UTC) + timedelta(seconds=SHORTEST_SESSION)).timestamp())
    try:
        with writing(store):
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
            with writing(store):
                after = store.policy(bucket).document
                kept = {handle: denial for handle, denial in denied_in(after).items() if handle != name}
                store.put_policy(bucket, with_denied(after, bucket, key, kept, partition=store.partition))
    except StoreRefused as error:
        raise Conflict(
            f"The store does not let the ender's key change the bucket's policy: {error.code[:60]}.",
            advice="Allow it s3:GetBucketPolicy, s3:PutBucketPolicy and s3:DeleteBucketPolicy on the buckets.",
        ) from error


def read_key(text: str, option: str) -> AccessKey:
    """A long-term key as a file holds it: the id on the first line, the secret on the second.

    Raises:
        Invalid: it holds something else.
    """
    lines = text.split()
    if len(lines) != 2:
        raise Invalid("A key's file has two lines: the access key id, and the secret access key.", field=f"/{option}")
    return AccessKey(lines[0], lines[1])
