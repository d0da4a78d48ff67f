"""How things stand for whoever is signed in: what lives, what waits for whom, and what to do next. Bounded asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guestkey.cli.api import Api, Json
from guestkey.cli.output import columns

_MOST = 100
COLUMNS = columns(
    "installation=url, ready, missing, closed since=installation.closed_at@, closed because=installation.why, "
    "signed in=signed_in, as=me.name, until=me.signed_in_until@, second factor=me.factor_at@, "
    "live leases=leases.live, not ended yet=leases.failing, next to end=leases.next@, "
    "your requests waiting=requests.waiting, waiting for you=requests.queue, "
    "proposals waiting for a second admin=proposals.waiting, notices=me.notices.sentence"
)


def status_summary(api: Api, me: Json) -> Json:
    """Counts of what concerns the person behind `me`; each stops at a hundred.

    Raises:
        Fault: as any call.
    """
    if me.get("status") != "active":
        return {}
    leases = api.pages("/leases", _MOST, state="live", person=me.get("id"))
    ends = sorted(str(lease.get("expires_at")) for lease in leases if lease.get("state") == "active")
    found: Json = {
        "leases": {
            "live": len(leases),
            "failing": sum(lease.get("state") == "revoke_failed" for lease in leases) or None,
            "next": ends[0] if ends else None,
        },
        "requests": {"waiting": len(api.pages("/requests", _MOST, state="pending", view="mine")), "queue": 0},
    }
    if me.get("vendor") is None:
        found["requests"]["queue"] = len(api.pages("/requests", _MOST, view="queue"))
    roles = set(me.get("roles") or [])
    if roles & {"admin", "auditor"}:
        found["installation"] = api.get("/installation")
    if "admin" in roles:
        waiting = api.pages("/proposals", _MOST, state="pending")
        found["proposals"] = {"waiting": sum(proposal.get("may_approve") is True for proposal in waiting)}
    return found


def next_command(facts: Mapping[str, Any]) -> str:
    """What is most worth doing now; "" if nothing waits."""
    if not facts["ready"]:
        return "guestkey doctor"
    if not facts["signed_in"]:
        return "guestkey login"
    me, leases, requests = (facts.get(name) or {} for name in ("me", "leases", "requests"))
    if leases.get("failing"):
        return "guestkey lease list --state revoke_failed"
    if requests.get("queue"):
        return "guestkey request list --view queue"
    if (facts.get("proposals") or {}).get("waiting"):
        return "guestkey proposal list --state pending"
    if me.get("status") == "active" and me.get("factor_enrolled") and not me.get("factor_at"):
        return "guestkey confirm"
    return ""


def remark(facts: Mapping[str, Any]) -> str:
    """What keeps the person from everything, if something does."""
    me = facts.get("me") or {}
    if (facts.get("installation") or {}).get("closed_at"):
        return (
            f"The installation is closed: no credentials are issued. An admin can open it: {facts['url']}/installation"
        )
    if me.get("status") == "pending":
        return "An admin has not confirmed you yet. Tell your contact at the organisation that you have joined."
    if me and not me.get("factor_enrolled"):
        return f"You have no second factor yet. Add one in the portal: {facts['url']}/security"
    return ""
