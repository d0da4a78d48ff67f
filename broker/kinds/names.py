"""How a slice is named at every backend: by the opaque part of its id, never by dataset or vendor."""

from __future__ import annotations

import re

# How a lease is named at its backend: a user of a database, an SSH key id, a session of an object store.
_OF_LEASE = re.compile(r"(?:gk_|token-)?[a-z0-9]{6}[-_](l[a-z0-9]{26})")
_SLICE_ID = re.compile(r"sl_[a-z0-9]{1,40}")


def short(slice_id: str) -> str:
    """The part of a slice's id that names it in backends.

    Raises:
        ValueError: it could widen a policy or a statement.
    """
    if _SLICE_ID.fullmatch(slice_id) is None:
        raise ValueError(f"unsafe slice id: {slice_id!r}")
    return slice_id.removeprefix("sl_")


def role_of(slice_id: str) -> str:
    """The database role in OpenBao that makes users of this slice."""
    return f"gk-{short(slice_id)}"


def policy_of(slice_id: str) -> str:
    """The OpenBao policy that lets a child token read credentials of this slice, and nothing else."""
    return f"guestkey-lease-gk-{short(slice_id)}"


def user_of(handle: str) -> str:
    """The name of a lease's user in a database, as OpenBao's username template makes it."""
    return "gk_" + handle.replace("-", "_")


def lease_of(name: str) -> str:
    """The id of the lease that a backend's name stands for (`gk_…` in `pg_stat_activity`); else the name as it is."""
    found = _OF_LEASE.fullmatch(name.strip())
    return found[1] if found else name
