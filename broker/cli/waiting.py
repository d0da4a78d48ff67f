"""Waiting for what the server does in its own time: a lease's end, a request's decision. Always bounded."""

from __future__ import annotations

import time

from broker.cli.api import Api, Json, segment
from broker.cli.faults import Code
from broker.cli.words import safe

_PAUSE = 0.3
_LONGEST_PAUSE = 5.0


def until_ended(api: Api, lease_id: str, *, seconds: float) -> Json:
    """The lease once its backend confirmed the end, or as it is when the time is up."""
    return _until(api, f"/leases/{segment(lease_id)}", {"pending", "active", "revoking"}, seconds)


def until_decided(api: Api, request_id: str, *, seconds: float) -> Json:
    """The request once somebody decided, or as it is when the time is up."""
    return _until(api, f"/requests/{segment(request_id)}", {"pending"}, seconds)


def outcome(lease: Json) -> str:
    """A sentence about how far the ending of a lease is."""
    name, state = safe(lease.get("id")), str(lease.get("state"))
    if state in {"revoked", "expired"}:
        return f"Lease {name} is {state}; the backend confirmed it."
    if state == "revoke_failed":
        return f"Lease {name} could not be ended yet; it is retried until it is. Next: guestkey lease show {name}"
    return f"Lease {name} is being ended; not confirmed yet. Next: guestkey lease show {name}"


def code_of(lease: Json) -> Code:
    """The exit code that tells how far the ending is."""
    state = str(lease.get("state"))
    if state in {"revoked", "expired"}:
        return Code.DONE
    return Code.PARTLY if state == "revoke_failed" else Code.WAITING


def _until(api: Api, path: str, open_states: set[str], seconds: float) -> Json:
    end, pause = time.monotonic() + seconds, _PAUSE
    while True:
        thing = api.get(path)
        left = end - time.monotonic()
        if thing.get("state") not in open_states or left <= 0:
            return thing
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
