"""Trying a prefix before it becomes a slice: as a guest would, and whether anything else would open with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from broker.base.errors import Invalid
from broker.kinds.s3.binding import S3Binding
from broker.kinds.s3.policy import listing_policy
from broker.kinds.s3.store import AccessKey, Store, StoreRefused

# What AWS and SeaweedFS open at the least, in seconds.
SHORTEST_SESSION = 900
# Objects counted when a slice is registered; beyond that the size reads as unknown.
_COUNTED = 1000
# Answers of a thousand names in which a prefix of another spelling is looked for, at each level.
_PAGES = 20
# Of one object alone: it lies in an archive, or was deleted just now.
_NOT_NOW = ("InvalidObjectState", "NoSuchKey")


def check_prefix(place: Mapping[str, str], issuer: AccessKey, binding: S3Binding, name: str) -> int | None:
    """How many objects lie under a prefix that a session can list and read; None for more than a thousand.

    Args:
        name: of the sessions it is tried with.

    Raises:
        Invalid: a session cannot read there, or could read elsewhere.
        BackendDown: no useful answer.
    """
    store = Store(place, issuer)
    try:
        guest = Store(place, store.open(name, binding, "read", SHORTEST_SESSION).key)
        found = guest.listed(binding.bucket, binding.prefix, _COUNTED)
        beside = guest.may(lambda s3: s3.list_objects_v2(Bucket=binding.bucket, MaxKeys=1))
    except StoreRefused as error:
        raise _not_registered(error.code) from error
    except ValueError as error:
        raise Invalid("The prefix is too long for a session's policy.", field="/binding/prefix") from error
    if beside:
        raise Invalid(
            "The store lets a session see beyond its prefix: it does not heed session policies.",
            field="/binding/connection",
            advice="Ask the operator to run: guestkey connect-backend s3 --check",
        )
    if found:
        _read(guest, binding, found[0])
    if folds_case(guest, binding):
        policy = listing_policy(binding.bucket, partition=store.partition)
        _only_spelling(Store(place, store.assume(name, policy, SHORTEST_SESSION).key), binding)
    return len(found) if len(found) < _COUNTED else None


def folds_case(guest: Store, binding: S3Binding) -> bool:
    """Whether a session's policy opens the prefix in capitals, too: SeaweedFS compares names without regard to case."""
    other = binding.prefix.swapcase()
    return other != binding.prefix and opens(
        guest, lambda s3: s3.get_object(Bucket=binding.bucket, Key=f"{other}guestkey-probe")
    )


def opens(guest: Store, act: Callable[[Any], object]) -> bool:
    """Whether the store lets a session do something, be it that there is nothing to do it to."""
    try:
        return guest.may(act)
    except StoreRefused:
        # Not there, which a session that may not look must not be told either.
        return True


def _read(guest: Store, binding: S3Binding, key: str) -> None:
    """Read from one object: a right to list says nothing of the key it is encrypted with, nor of whose it is."""
    try:
        guest.read_byte(binding.bucket, key)
    except StoreRefused as error:
        if error.code in _NOT_NOW:
            return
        raise Invalid(
            f"A session can list the prefix and not read from it: the store answers {error.code[:60]}.",
            field="/binding/prefix",
            advice="Where the bucket is encrypted with a KMS key, name it when connecting (--kms-key), and let the"
            " bucket own its objects. See docs/connect-s3.md.",
        ) from error


def _only_spelling(lister: Store, binding: S3Binding) -> None:
    """Refuse a prefix of which the bucket has another spelling: guests would reach both."""
    spellings = [""]
    for part in binding.prefix.split("/")[:-1]:
        below = [(above, folder) for above in spellings for folder in _folders(lister, binding.bucket, above)]
        spellings = [folder for above, folder in below if folder[len(above) : -1].casefold() == part.casefold()]
    others = [spelling for spelling in spellings if spelling != binding.prefix]
    if others:
        raise Invalid(
            f"This store compares names in a policy without regard to case: a guest would reach {others[0]}, too.",
            field="/binding/prefix",
            advice="Rename one of the two, or keep them in different buckets.",
        )


def _folders(lister: Store, bucket: str, prefix: str) -> list[str]:
    try:
        found, all_of_them = lister.folders(bucket, prefix, _PAGES)
    except StoreRefused as error:
        raise _not_registered(error.code) from error
    if not all_of_them:
        raise Invalid(
            "The store compares names in a policy without regard to case, and the bucket has too many to see whether"
            " another prefix differs in case only.",
            field="/binding/prefix",
            advice="Keep the slice in a bucket with fewer prefixes beside it.",
        )
    return found


def _not_registered(code: str) -> Invalid:
    if code in ("NoSuchBucket", "404"):
        return Invalid("There is no such bucket.", field="/binding/bucket")
    return Invalid(
        "The store does not allow a session to read there.",
        field="/binding/bucket",
        advice="Let the connection's role read and list the bucket; see docs/connect-s3.md.",
    )
