"""What a bucket's own settings mean for its guests: keys it is encrypted with, and uploads that nobody completes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from broker.base.errors import Conflict
from broker.kinds.s3.store import Store, StoreRefused

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def readable(place: Mapping[str, str], ender: Store, bucket: str, told: Callable[[str], None]) -> None:
    """Refuse a bucket that is encrypted with a KMS key no session would have a right to.

    Raises:
        Conflict: it is, or the ender's key may not see whether it is.
        BackendDown: no useful answer.
    """
    try:
        keys = ender.bucket_keys(bucket)
    except StoreRefused as error:
        if error.code in ("NotImplemented", "MethodNotAllowed"):
            told("The store does not say how a bucket is encrypted.")
            return
        raise Conflict(
            f"The store does not let the ender's key see how the bucket is encrypted: {error.code[:60]}.",
            advice="Allow it s3:GetEncryptionConfiguration on the buckets.",
        ) from error
    given = place.get("kms_keys", "").split()
    unknown = unopened(keys, given, at_aws=_at_aws(place))
    if unknown is not None:
        raise Conflict(
            f"The bucket is encrypted with the KMS key {unknown or 'of the account (aws/s3)'}, and no session would"
            " have a right to it: a guest's first read would be refused.",
            advice=f"Connect with --kms-key {unknown if unknown.startswith('arn:') else 'ARN'}, and allow the role"
            " kms:Decrypt and kms:GenerateDataKey on it; see docs/connect-s3.md.",
        )
    if keys and not given:
        told("The bucket is encrypted with a key of the store's own KMS, which it uses by itself.")
    if given:
        told("Sessions get the right to the KMS key through the store. It is tried when a slice is registered.")


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


def tidied(ender: Store, bucket: str, told: Callable[[str], None]) -> None:
    """Say so where nothing ever aborts uploads in parts that a guest began and did not complete."""
    advice = "docs/connect-s3.md has a rule that aborts them after a day."
    try:
        if not ender.aborts_uploads(bucket):
            told(f"! Uploads in parts that a guest leaves unfinished stay in this bucket for ever. {advice}")
    except StoreRefused as error:
        told(f"! Whether unfinished uploads are aborted cannot be seen ({error.code[:60]}). {advice}")


def _at_aws(place: Mapping[str, str]) -> bool:
    address = place.get("endpoint_url")
    return address is None or (urlsplit(address).hostname or "").endswith(_AWS)
