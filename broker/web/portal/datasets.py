"""Datasets: those one may see, and one of them: what it is, how it stands, and opening it again."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.paging import Window
from broker.models import DATASET_STATUSES, Person, Vendor
from broker.registry.datasets import DATASETS, dataset, is_owner, sees_binding
from broker.suspensions.suspending import resume
from broker.web.api.dataset_shapes import full, summaries
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.history import history
from broker.web.portal.pages import render
from broker.web.portal.proposed_acts import waiting_acts
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()


@router.get("/datasets")
def datasets(viewer: MemberNow, cursor: str | None = None, status: str = "") -> HTMLResponse:
    """Every dataset the person may see; to vendors' people those they could use."""
    wanted = status if status in DATASET_STATUSES else None
    with viewer.parts.database.transaction() as tx:
        page = DATASETS.page(tx, viewer.caller, Window(cursor), status=wanted if viewer.inside else "active")
        shown = summaries(tx, page.items)
    return render("datasets.html", viewer=viewer, page=page, datasets=shown, chosen=wanted or "")


@router.get("/datasets/{slug}")
def one_dataset(slug: str, viewer: MemberNow) -> HTMLResponse:
    """One dataset: what it is, its slices, and the roles one can ask for."""
    return _page(Setback(viewer), slug, {})


@router.post("/datasets/{slug}/resume")
def resume_dataset(slug: str, viewer: MemberNow, sent: Sent) -> Response:
    """Open a suspended one again; no lease comes back."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            resume(tx, viewer.caller, "dataset", slug, sent.get("reason", ""), clock(tx))
        return go(f"/datasets/{slug}")

    return act(viewer, sent, do, lambda back: _page(back, slug, sent), needs=fresh)


def _page(back: Setback, slug: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        found = dataset(tx, viewer.caller, slug)
        shown = full(viewer.parts, tx, viewer.caller, found)
        insight = sees_binding(viewer.caller, found)
        return render(
            "dataset.html",
            viewer=viewer,
            status=back.status if back.trouble or back.panel else 200,
            trouble=back.trouble,
            panel=back.panel,
            filled=sent,
            dataset=shown,
            owner=tx.get(Person, shown.owner) if shown.owner else None,
            vendors={offer.vendor: tx.get_one(Vendor, offer.vendor).name for offer in shown.offers},
            insight=insight,
            tends=viewer.caller.is_admin or is_owner(viewer.caller, found),
            history=history(tx, viewer, "dataset", found.id) if insight else None,
            **(waiting_acts(tx, viewer, [found.id]) if insight else {"proposed": []}),
        )
