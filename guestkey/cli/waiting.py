"""Waiting for what the server does in its own time: a lease's end, a request's decision. Always bounded."""

from __future__ import annotations

import time
from collections.abc import Sequence

from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code
from guestkey.cli.output import Output, Progress
from guestkey.cli.words import safe

_PAUSE = 0.3
_LONGEST_PAUSE = 5.0


def until_ended(api: Api, out: Output, lease_id: str, *, seconds: float) -> Json:
    """The lease once its backend confirmed the end, or as it is when the time is up.

    Raises:
        KeyboardInterrupt: with what a person who left must know.
    """
    try:
        return _until(api, out, f"/leases/{segment(lease_id)}", {"pending", "active", "revoking"}, seconds)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"The lease is still being ended. Next: guestkey lease show {lease_id}") from None


def until_all_ended(api: Api, out: Output, lease_ids: Sequence[str], *, seconds: float) -> list[Json]:
    """The same for several, within the same time."""
    end = time.monotonic() + seconds
    return [until_ended(api, out, one, seconds=max(end - time.monotonic(), 0.0)) for one in lease_ids]


def until_decided(api: Api, out: Output, request_id: str, *, seconds: float) -> Json:
    """The request once somebody decided, or as it is when the time is up."""
    return _until(api, out, f"/requests/{segment(request_id)}", {"pending"}, seconds)


def outcome(lease: Json) -> str:
    """A sentence about how far the ending of a lease is."""
    name, state = safe(lease.get("id")), str(lease.get("state"))
    if state in {"revoked", "expired"}:
        return f"Lease {name} is {state}; the backend confirmed it."
    if lease.get("exposed_until"):
        until = safe(lease["exposed_until"])
        return f"Lease {name} is being ended; its backend cannot end it before {until}; Guestkey tries again then."
    if state == "revoke_failed":
        return f"Lease {name} could not be ended yet; Guestkey keeps trying. Next: guestkey lease show {name}"
    return f"Lease {name} is being ended; not confirmed yet. Next: guestkey lease show {name}"


def code_of(*leases: Json) -> Code:
    """The exit code that tells how far the ending of all of them is."""
    states = {str(lease.get("state")) for lease in leases} - {"revoked", "expired"}
    if not states:
        return Code.DONE
    return Code.PARTLY if "revoke_failed" in states else Code.WAITING


def _until(api: Api, out: Output, path: str, open_states: set[str], seconds: float) -> Json:
    began, pause = time.monotonic(), _PAUSE
    with Progress(out) as progress:
        while True:
            thing = api.get(path)
            passed = time.monotonic() - began
            left = seconds - passed
            if thing.get("state") not in open_states or left <= 0 or thing.get("exposed_until"):
                return thing
            if out.overwrites:
                progress.tell(f"{safe(thing.get('id'))} is {safe(thing.get('state'))}; waiting, {passed:.0f} s")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
