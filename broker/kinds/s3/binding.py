"""Where a slice lives in an object store: a bucket and a prefix. Nothing in it can mean more than it says.

Both reach policy documents, in which `*`, `?` and `${…}` are patterns: a name that holds one would widen the slice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
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
