"""Where a slice lives in an object store, a bucket and a prefix, and how that becomes the two policy documents. Pure.

One says what a session may do, the other which sessions a bucket refuses. In both `*`, `?` and `${…}` are patterns: a
name that holds one would widen the slice. They are built as data and written by `json`, never as text. What reads a
bucket's policy raises `UnreadablePolicy` where it is none.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from broker.base.errors import Invalid
from broker.kinds.names import connection_of

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
# Amazon's reserved beginnings and ends (S3 user guide, "General purpose bucket naming rules").
_RESERVED = (("xn--", "sthree-", "amzn-s3-demo-"), ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"))
# S3's own limit on keys is 1,024 bytes; beyond this a session policy of 2,048 characters could not name it thrice.
LONGEST_PREFIX = 400
VERSION = "2012-10-17"
# The limits of AWS, which others follow: an inline session policy in characters, a bucket's policy in bytes.
LONGEST_SESSION_POLICY = 2048
LONGEST_BUCKET_POLICY = 20 * 1024
_SID = re.compile(r"GuestkeyEnded([0-9]{9,11})(?:W([0-9]{9,11}))?")
# Ended sessions are kept in groups that lapse together: fewer statements, and so room for more sessions.
GROUP_SECONDS = 900
Denied = Mapping[str, "Denial"]


@dataclass(frozen=True, slots=True)
class S3Binding:
    """A validated binding; `parse` is the only way to make one."""

    connection: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> S3Binding:
        """Validate a binding as it comes from outside or from a record.

        Args:
            raw: `{connection, bucket, prefix}`.

        Raises:
            Invalid: naming the field that is unknown, malformed or could widen the slice.
        """
        connection = connection_of(raw, "bucket", "prefix")
        return cls(connection, _bucket(raw.get("bucket")), _prefix(raw.get("prefix")))

    def canonical(self) -> dict[str, Any]:
        """The binding as JSON, the way it is kept."""
        return asdict(self)


def _bucket(name: object) -> str:
    field = "/binding/bucket"
    if not isinstance(name, str) or _BUCKET.fullmatch(name) is None or ".." in name:
        raise Invalid(
            "A bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens, and begins and ends with a"
            " letter or digit.",
            field=field,
        )
    if _ADDRESS.fullmatch(name):
        raise Invalid("A bucket's name cannot be an IP address.", field=field)
    if name.startswith(_RESERVED[0]) or name.endswith(_RESERVED[1]):
        raise Invalid("Buckets of such names are aliases or reserved: name the bucket itself.", field=field)
    return name


def _prefix(prefix: object) -> str:
    if not isinstance(prefix, str) or not prefix:
        raise _refused("The prefix is missing: a slice cannot be a whole bucket.")
    if len(prefix.encode(errors="surrogatepass")) > LONGEST_PREFIX:
        raise _refused(f"A prefix has at most {LONGEST_PREFIX} bytes.")
    for character, why in (
        ("*", "A prefix cannot contain *: in a policy it means anything."),
        ("?", "A prefix cannot contain ?: in a policy it means any character."),
        ("$", "A prefix cannot contain $: in a policy it begins a variable."),
        ("\\", "A prefix cannot contain a backslash: stores read it in different ways."),
    ):
        if character in prefix:
            raise _refused(why)
    # Categories: control, format, surrogate, private, unassigned; line and paragraph separators; spaces but U+0020.
    if any(unicodedata.category(sign)[0] == "C" or unicodedata.category(sign) in ("Zl", "Zp") for sign in prefix):
        raise _refused("A prefix cannot contain control or invisible characters.")
    if any(sign.isspace() and sign != " " for sign in prefix) or prefix != unicodedata.normalize("NFC", prefix):
        raise _refused("A prefix is written in composed characters (NFC), with no space but the plain one.")
    return _segments(prefix)


def _segments(prefix: str) -> str:
    if prefix.startswith("/"):
        raise _refused("A prefix does not begin with /.")
    if not prefix.endswith("/"):
        raise _refused("A prefix ends with /: without it, trials would also show trials2.", f"Write {prefix}/.")
    parts = prefix[:-1].split("/")
    if "" in parts:
        raise _refused("A prefix has no empty part (//).")
    if "." in parts or ".." in parts:
        raise _refused("A prefix has no part . or ..: stores resolve them in different ways.")
    if any(part != part.strip() for part in parts):
        raise _refused("No part of a prefix begins or ends with a space.")
    return prefix


def _refused(why: str, advice: str = "") -> Invalid:
    return Invalid(why, field="/binding/prefix", advice=advice)


@dataclass(frozen=True, slots=True)
class Denial:
    """One refused session: until when it would have lived, and when that was written (0: long since). In seconds."""

    until: int
    written: int = 0


class UnreadablePolicy(Exception):
    """A bucket's policy is not a document whose statements we could keep as they are."""


def partition_of(role_arn: str) -> str:
    """The part of AWS that a role is in: `aws`, `aws-cn`, `aws-us-gov` …; names of its buckets begin with it, too."""
    return role_arn.split(":")[1]


def session_policy(
    binding: S3Binding,
    action: str,
    networks: Iterable[str] = (),
    *,
    partition: str = "aws",
    kms_keys: Iterable[str] = (),
) -> str:
    """What a session may do: read or write under the prefix, and nothing else.

    Reading lists under the prefix only; writing neither reads nor lists nor deletes. The role's own policy bounds it
    further, because a session may do what both allow.

    Args:
        kms_keys: ARNs of keys that buckets are encrypted with; AWS asks for a right to them with each object.

    Raises:
        ValueError: it would be longer than stores take.
    """
    bucket = f"arn:{partition}:s3:::{binding.bucket}"
    objects = f"{bucket}/{binding.prefix}*"
    statements: list[dict[str, Any]]
    if action == "read":
        statements = [
            {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [objects]},
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [bucket],
                "Condition": {"StringLike": {"s3:prefix": [f"{binding.prefix}*"]}},
            },
        ]
    else:
        actions = ["s3:PutObject", "s3:AbortMultipartUpload"]
        statements = [{"Effect": "Allow", "Action": actions, "Resource": [objects]}]
    if held_to := sorted(networks):
        for statement in statements:
            statement["Condition"] = {**statement.get("Condition", {}), "IpAddress": {"aws:SourceIp": held_to}}
    if used := sorted(kms_keys):
        statements.append(_through_the_store(used, action))
    # ASCII only: the limit is on characters, and what is signed must not depend on an encoding.
    text = json.dumps({"Version": VERSION, "Statement": statements}, separators=(",", ":"))
    if len(text) > LONGEST_SESSION_POLICY:
        raise ValueError("the session policy is too long")
    return text


def _through_the_store(kms_keys: list[str], action: str) -> dict[str, Any]:
    """The right to have objects decrypted and encrypted by S3, and to call KMS for nothing else.

    No address is asked for: it is S3 that calls KMS, and has asked for the guest's.
    """
    return {
        "Effect": "Allow",
        # Completing an upload in parts decrypts them.
        "Action": ["kms:Decrypt"] if action == "read" else ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": kms_keys,
        "Condition": {"StringLike": {"kms:ViaService": ["s3.*.amazonaws.com*"]}},
    }


def listing_policy(bucket: str, *, partition: str = "aws") -> str:
    """What looking for names in a bucket takes: listing all of it, and reading nothing."""
    allowed = {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:{partition}:s3:::{bucket}"]}
    return json.dumps({"Version": VERSION, "Statement": [allowed]}, separators=(",", ":"))


def _mapping(found: object) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def denied_in(document: str) -> dict[str, Denial]:
    """The sessions a bucket's policy refuses for us, by handle."""
    found: dict[str, Denial] = {}
    for statement in _statements(document):
        match = _SID.fullmatch(str(statement.get("Sid", "")))
        if match is None or statement.get("Effect") != "Deny":
            continue
        until, written = int(match[1]), int(match[2] or 0)
        for values in _mapping(_mapping(statement.get("Condition")).get("StringLike")).values():
            for value in [values] if isinstance(values, str) else list(values):
                handle = str(value).rpartition(":")[2]
                known = found.get(handle)
                if known is None or until > known.until:
                    found[handle] = Denial(until, written)
    return found


def with_denied(document: str, bucket: str, key: str, denied: Denied, *, partition: str = "aws") -> str:
    """A bucket's policy that refuses these sessions and keeps every statement of others as it was; "" for none at all.

    Args:
        key: the condition key that carries a session's name at this store, `aws:userid` or `aws:username`.
    """
    whole = _document(document)
    kept = [statement for statement in _statements(document) if not _SID.fullmatch(str(statement.get("Sid", "")))]
    groups: dict[tuple[int, int], list[str]] = {}
    for handle, denial in denied.items():
        groups.setdefault((denial.until, denial.written), []).append(handle)
    arn = f"arn:{partition}:s3:::{bucket}"
    ours = [_refusal(arn, key, group, handles) for group, handles in sorted(groups.items())]
    if not kept and not ours:
        return ""
    whole["Version"] = whole.get("Version", VERSION)
    whole["Statement"] = [*kept, *ours]
    return json.dumps(whole, separators=(",", ":"))


def _refusal(arn: str, key: str, group: tuple[int, int], handles: list[str]) -> dict[str, Any]:
    until, written = group
    return {
        "Sid": f"GuestkeyEnded{until}" + (f"W{written}" if written else ""),
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"StringLike": {key: [named(key, handle) for handle in sorted(handles)]}},
    }


def named(key: str, handle: str) -> str:
    """How a condition names a session: AWS puts the role's id before its name, whatever that is."""
    return f"*:{handle}" if key == "aws:userid" else handle


def lapses(session_until: float) -> int:
    """When a denial may go: the session's end, rounded up to the end of its group."""
    return (int(session_until) // GROUP_SECONDS + 1) * GROUP_SECONDS


def _document(document: str) -> dict[str, Any]:
    if not document:
        return {"Version": VERSION, "Statement": []}
    try:
        whole = json.loads(document)
    except ValueError as error:
        raise UnreadablePolicy("the bucket's policy is no JSON") from error
    if not isinstance(whole, dict) or "Statement" not in whole:
        raise UnreadablePolicy("the bucket's policy has no statements")
    return whole


def _statements(document: str) -> list[dict[str, Any]]:
    found = _document(document)["Statement"]
    listed = [found] if isinstance(found, dict) else found
    if not isinstance(listed, list) or not all(isinstance(statement, dict) for statement in listed):
        raise UnreadablePolicy("the bucket's policy has statements of another shape")
    return listed
