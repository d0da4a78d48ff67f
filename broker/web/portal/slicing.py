"""A dataset's slices, for its owner, admins and auditors: where each lives, how it stands; taking one away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Forbidden
from broker.gate.simulation import slices_without_rule
from broker.kinds.discovery import kinds
from broker.registry import slice_changes, slices
from broker.registry.datasets import dataset as dataset_seen
from broker.registry.datasets import sees_binding
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.describing import condition_said
from broker.web.portal.pages import render
from broker.web.portal.proposed_acts import waiting_acts
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()


@router.get("/datasets/{slug}/slices")
def all_slices(slug: str, viewer: MemberNow) -> HTMLResponse:
    """The slices of a dataset."""
    return _page(Setback(viewer), slug, "", {})


@router.get("/live/datasets/{slug}/slices")
def live_slices(slug: str, viewer: MemberNow) -> HTMLResponse:
    """The same table alone, for the script that keeps it current."""
    return render("describe/slice_table.html", viewer=viewer, **_shown(viewer, slug))


@router.post("/datasets/{slug}/slices/{name}/retry")
def retry(slug: str, name: str, viewer: MemberNow, sent: Sent) -> Response:
    """Have one that failed registered again."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            slices.retry_slice(tx, viewer.caller, slug, name, clock(tx))
        return go(f"/datasets/{slug}/slices")

    return act(viewer, sent, do, lambda back: _page(back, slug, f"retry-{name}", sent), needs=fresh)


@router.post("/datasets/{slug}/slices/{name}/confirm")
def confirm(slug: str, name: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take one whose table has changed as it is now; its owner has looked."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            slice_changes.confirm_slice(tx, viewer.caller, slug, name, clock(tx))
        return go(f"/datasets/{slug}/slices")

    return act(viewer, sent, do, lambda back: _page(back, slug, f"confirm-{name}", sent), needs=fresh)


@router.post("/datasets/{slug}/slices/{name}/fast")
def fast(slug: str, name: str, viewer: MemberNow, sent: Sent) -> Response:
    """Let guests' conditions be planned together with its row filter, or keep them apart again."""

    def do(viewer: Viewer) -> Response:
        wanted = sent.get("fast", "") == "yes"
        with viewer.parts.database.transaction() as tx:
            slice_changes.set_fast(tx, viewer.caller, slug, name, clock(tx), fast=wanted)
        return go(f"/datasets/{slug}/slices")

    return act(viewer, sent, do, lambda back: _page(back, slug, f"fast-{name}", sent), needs=fresh)


@router.post("/datasets/{slug}/slices/retire")
def retire(slug: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take one away; its leases end."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            slices.retire_slice(tx, viewer.caller, slug, sent.get("slice", ""), sent.get("reason", ""), clock(tx))
        return go(f"/datasets/{slug}/slices")

    return act(viewer, sent, do, lambda back: _page(back, slug, "retire", sent), needs=fresh)


def _shown(viewer: Viewer, slug: str) -> dict[str, Any]:
    with viewer.parts.database.transaction() as tx:
        found = dataset_seen(tx, viewer.caller, slug)
        if not sees_binding(viewer.caller, found):
            raise Forbidden("Only the dataset's owner, admins and auditors can see this.", advice="Ask one of them.")
        held = slices.slices_of(tx, [found.id])[found.id]
        unreached = slices_without_rule(tx, viewer.parts.rulebook, found, held)
        waiting = waiting_acts(tx, viewer, [found.id])
        confirms = slice_changes.may_confirm(tx, viewer.caller, found)
    return {
        **waiting,
        "dataset": found,
        "slices": held,
        "with_id": {item.id for item in held if kinds[item.kind].names_slices_by_id},
        "names": [(item.name, item.name) for item in held],
        "conditions": {item.id: [condition_said(row) for row in item.binding.get("rows", [])] for item in held},
        "confirms": confirms,
        "unreached": unreached,
        "waiting": any(item.state == "registering" for item in held),
    }


def _page(back: Setback, slug: str, asked_for: str, sent: Mapping[str, str]) -> HTMLResponse:
    return render(
        "describe/slices.html",
        viewer=back.viewer,
        status=back.status if back.trouble or back.panel else 200,
        trouble=back.trouble,
        panel=back.panel,
        asked_for=asked_for,
        filled=sent,
        **_shown(back.viewer, slug),
    )
