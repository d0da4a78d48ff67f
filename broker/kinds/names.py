"""How slices and leases are named at every backend, by opaque ids, and how bindings name what they are bound to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from broker.base.errors import Invalid

# How a lease is named at its backend: a user of a database, an SSH key id, a session of an object store.
_OF_LEASE = re.compile(r"(?:gk_|token-)?[a-z0-9]{6}[-_](l[a-z0-9]{26})")
_CONNECTION = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_SLICE_ID = re.compile(r"sl_[a-z0-9]{1,40}")


def short(slice_id: str) -> str:
    """The part of a slice's id that names it in backends.

    Raises:
        ValueError: it could widen a policy or a statement.
    """
    if _SLICE_ID.fullmatch(slice_id) is None:
        raise ValueError(f"unsafe slice id: {slice_id!r}")
    return slice_id.removeprefix("sl_")


def role_of(slice_id: str, action: str = "") -> str:
    """The role in OpenBao that makes credentials for this slice, and for this action where kinds have one for each."""
    return f"gk-{short(slice_id)}" + (f"-{action}" if action else "")


def policy_of(slice_id: str, action: str = "") -> str:
    """The OpenBao policy that lets a child token use the role of that name, and nothing else."""
    return f"guestkey-lease-{role_of(slice_id, action)}"


def user_of(handle: str) -> str:
    """The name of a lease's user in a database, as OpenBao's username template makes it."""
    return "gk_" + handle.replace("-", "_")


def lease_of(name: str) -> str:
    """The id of the lease that a backend's name stands for (`gk_…` in `pg_stat_activity`); else the name as it is."""
    found = _OF_LEASE.fullmatch(name.strip())
    return found[1] if found else name


def connection_of(binding: Mapping[str, Any], *others: str, longest: int = 32) -> str:
    """The connection that a binding names.

    Args:
        others: the fields that the binding may have beside it.

    Raises:
        Invalid: it is not named, or there is a field that a kind does not know.
    """
    unknown = set(binding) - {"connection", *others}
    if unknown:
        raise Invalid(f"Unknown fields in the binding: {', '.join(sorted(map(str, unknown)))}.", field="/binding")
    name = binding.get("connection")
    if not isinstance(name, str) or len(name) > longest or _CONNECTION.fullmatch(name) is None:
        raise Invalid(
            "The connection must be named, in lower case.",
            field="/binding/connection",
            advice=f"Letters, digits and -, up to {longest}.",
        )
    return name
