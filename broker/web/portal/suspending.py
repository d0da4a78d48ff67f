"""The kill switch, each step a page: what it would end, agreeing to it, watching it happen, the report.

Beside it what is done for good, or takes somebody's key away, with the name typed: offboarding a vendor and retiring a
dataset happen at once; resetting a second factor waits for a second admin. And opening the installation again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import ValidationError
from starlette.responses import Response

from broker.auditing.statistics import confirmed
from broker.base.errors import Invalid, NotFound
from broker.identity.permissions import require_admin
from broker.registry import datasets, people, vendors
from broker.registry.naming import names_of
from broker.revocation import closing
from broker.revocation.counts import INSTALLATION, What
from broker.suspensions import reports, suspending
from broker.suspensions.reports import LeaseOutcome, SuspensionReport
from broker.web.api.common import lifetime_of
from broker.web.api.grants import grants_shown
from broker.web.api.suspensions import CountsShown, dry_run_shown
from broker.web.portal.forms import Context, PortalRequest, act, form, page
from broker.web.portal.pages import render, to_the_second

ADDRESSES = ("/vendors/{key}/offboard", "/datasets/{key}/retire", "/people/{key}/reset-factor")
_WHAT_ENDS: Mapping[str, What] = {"offboard": "vendor", "retire": "dataset", "reset-factor": "person"}


@page(*ADDRESSES, template="admin/offboard.html")
def look_before(req: PortalRequest, key: str) -> Context:
    """What would happen, and the form that does it."""
    require_admin(req.caller)
    run = suspending.dry_run(req.tx, req.caller, _WHAT_ENDS[_act(req)], key)
    return {"act": _act(req), "run": run, "path": req.viewer.request.url.path}


@form(*ADDRESSES, rerender=look_before)
def offboard_or_retire(req: PortalRequest, key: str) -> str:
    """Do it, or for a second factor propose it."""
    act, reason = _act(req), req.field("reason")
    check_typed_name(req, suspending.find(req.tx, req.caller, _WHAT_ENDS[act], key).name)
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


_WHAT: Mapping[str, What] = {"vendors": "vendor", "people": "person", "datasets": "dataset"}
_DRY_RUN = ("/{place}/{key}/suspend", "/installation/close")
_CONFIRM = tuple(f"{path}/confirm" for path in _DRY_RUN)
_SHOWN = 200
_CHARTED = 30


@page("/suspensions", template="suspend/list.html")
def all_suspensions(req: PortalRequest) -> Context:
    """Suspensions, newest first."""
    state = req.asked("state") if req.asked("state") in ("open", "lifted") else None
    found = reports.SUSPENSIONS.page(req.tx, req.caller, req.window(), state=state)
    ended = confirmed(req.tx, found.items[:_CHARTED], req.viewer.now)
    return {"page": found, "chosen": state or "", "confirmed": ended}


@page(*_DRY_RUN, template="suspend/dry_run.html")
def dry_run(req: PortalRequest) -> Context:
    """What suspending, or closing the whole installation, would end, how and how fast, and what it would not."""
    return _dry_run(req)


@page(*_CONFIRM, template="suspend/confirm.html")
def agree(req: PortalRequest) -> Context:
    """Agreeing: reason, what those shut out are told, the name typed."""
    shown = _dry_run(req)
    counts = dry_run_shown(shown["run"]).counts.model_dump_json()
    # What was shown when the form was first opened, not what there is now.
    return {**shown, "expected": req.sent.get("expected", counts)}


@form(*_CONFIRM, rerender=agree)
def suspend(req: PortalRequest, **_named: str) -> str | Response:
    """Suspend, and go where it can be watched. Closing everything signs out whoever does it, too."""
    what, key = _target(req)
    check_typed_name(req, suspending.find(req.tx, req.caller, what, key).name)
    reason, message, expected = req.field("reason"), req.field("message"), _expected(req)
    begun, _ = suspending.suspend(req.tx, req.caller, what, key, reason, req.now, message=message, expected=expected)
    if what == INSTALLATION:
        return render("suspend/closed.html", item=begun)
    return f"/suspensions/{begun.id}/live"


@page(
    "/suspensions/{suspension_id}/live",
    template="suspend/live.html",
    live=("/live/suspensions/{suspension_id}", "suspend/progress.html"),
)
def live(req: PortalRequest, suspension_id: str) -> Context:
    """How far it is. Closing this page changes nothing."""
    found = reports.report(req.parts, req.tx, req.caller, suspension_id, req.now, only_open=True)
    failing = _failing(found)
    names = names_of(req.tx, [outcome.lease for outcome in failing])
    return {**_shown(found), "failing": failing, "names": names}


@page("/suspensions/{suspension_id}", template="suspend/report.html")
def report(req: PortalRequest, suspension_id: str) -> Context:
    """The report: each credential's outcome, the longest exposure, how it differs from the dry run."""
    found = reports.report(req.parts, req.tx, req.caller, suspension_id, req.now)
    by, outcomes = found.suspension.suspended_by, found.outcomes[:_SHOWN]
    names = names_of(req.tx, [by, *(outcome.lease for outcome in outcomes)])
    shown = {"outcomes": outcomes, "names": names, "failing": _failing(found), "by": names.get(by, by)}
    return {**_shown(found), **shown}


@form("/suspensions/{suspension_id}/resume", rerender=report)
def resume(req: PortalRequest, suspension_id: str) -> str:
    """Lift it. No session and no lease comes back."""
    item = reports.report(req.parts, req.tx, req.caller, suspension_id, req.now).suspension
    what = cast("What", item.what)
    key = suspending.key_of(req.tx, what, item.target_id)
    suspending.resume(req.tx, req.caller, what, key, req.field("reason"), req.now)
    return f"/suspensions/{suspension_id}"


def resuming(what: What) -> Callable[..., object]:
    """What lifts a suspension, for `act`. No session and no lease comes back."""
    return lambda tx, caller, key, reason, now: suspending.resume(tx, caller, what, key, reason, now)


def _target(req: PortalRequest) -> tuple[What, str]:
    named = req.viewer.request.path_params
    if not named:
        return INSTALLATION, INSTALLATION
    if named["place"] not in _WHAT:
        raise NotFound("There is no such page.")
    return _WHAT[named["place"]], named["key"]


def _dry_run(req: PortalRequest) -> Context:
    path = req.viewer.request.url.path.removesuffix("/confirm")
    return {"path": path, "run": suspending.dry_run(req.tx, req.caller, *_target(req))}


def _failing(found: SuspensionReport) -> list[LeaseOutcome]:
    return [outcome for outcome in found.outcomes if outcome.state == "revoke_failed"][:_SHOWN]


def _shown(found: SuspensionReport) -> Context:
    return {"report": found, "item": found.suspension, "refused_since": to_the_second(found.suspension.started_at)}


def _expected(req: PortalRequest) -> Mapping[str, Any] | None:
    try:
        return CountsShown.model_validate(json.loads(req.field("expected"))).model_dump()
    except (ValueError, ValidationError):
        # Only the report's comparison rests on it.
        return None


@page("/installation", template="admin/installation.html")
def installation(req: PortalRequest) -> Context:
    """How the installation stands."""
    held = closing.held_grants(req.tx, req.caller)
    return {
        "stands": closing.installation_state(req.tx),
        "grants": grants_shown(req.tx, held),
        "vendors": vendors.choices(req.tx, ["active"]) if held else [],
    }


act("/installation/open", closing.reopen, "reason", rerender=installation)


@form("/installation/confirm", rerender=installation)
def confirm_grants(req: PortalRequest) -> str:
    """Let a held grant count again, or all of a vendor's."""
    which = req.field("which")
    if not which.startswith("vn_"):
        closing.confirm_grants(req.tx, req.caller, req.now, grants=[which])
    else:
        while closing.confirm_grants(req.tx, req.caller, req.now, vendor=which) == closing.BATCH:
            continue
    return "/installation"
