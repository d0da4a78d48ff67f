"""What is done for good, or takes somebody's key away: a page of its own each, with the name typed.

Offboarding a vendor and retiring a dataset happen at once; resetting a second factor waits for a second admin.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.base.errors import Invalid
from broker.identity.permissions import require_admin
from broker.registry import datasets, people, vendors
from broker.revocation.counts import What
from broker.suspensions import suspending
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.proposed import lifetime_of

ADDRESSES = ("/vendors/{key}/offboard", "/datasets/{key}/retire", "/people/{key}/reset-factor")
_WHAT: Mapping[str, What] = {"offboard": "vendor", "retire": "dataset", "reset-factor": "person"}


@page(*ADDRESSES, template="admin/offboard.html")
def look_before(req: PortalRequest, key: str) -> Context:
    """What would happen, and the form that does it."""
    require_admin(req.caller)
    run = suspending.dry_run(req.tx, req.caller, _WHAT[_act(req)], key)
    return {"act": _act(req), "run": run, "path": req.viewer.request.url.path}


@form(*ADDRESSES, rerender=look_before)
def offboard_or_retire(req: PortalRequest, key: str) -> str:
    """Do it, or for a second factor propose it."""
    act, reason = _act(req), req.field("reason")
    check_typed_name(req, suspending.find(req.tx, req.caller, _WHAT[act], key).name)
    if act == "reset-factor":
        waits = people.propose_factor_reset(req.tx, req.caller, key, req.now, lifetime=lifetime_of(req.parts))
        return f"/proposals/{waits.id}"
    end = vendors.offboard_vendor if act == "offboard" else datasets.retire_dataset
    end(req.tx, req.caller, key, reason, req.now)
    return req.viewer.request.url.path.rpartition("/")[0]


def check_typed_name(req: PortalRequest, name: str) -> None:
    """Check that whoever ends something for good has typed what it is called.

    Raises:
        Invalid: it is another name.
    """
    if req.field("typed").strip() != name:
        raise Invalid("The name does not match.", field="/typed", advice=f"Type {name} exactly.")


def _act(req: PortalRequest) -> str:
    return req.viewer.request.url.path.rpartition("/")[2]
