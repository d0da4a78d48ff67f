"""For who decides about a dataset: giving a grant to one of a vendor's people or teams, without a request."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Forbidden
from broker.gate.simulation import roles_reaching
from broker.models import Dataset, Person, Team, Vendor
from broker.registry.datasets import dataset as dataset_seen
from broker.registry.naming import each_told_apart
from broker.registry.offers import offers_of
from broker.registry.slices import slices_of
from broker.requests import bulk_grants
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_MOST = 500
_FIELDS = ("dataset", "role", "slice", "purpose", "until")


@router.get("/grants/new")
def new_grant(viewer: MemberNow, dataset: str = "") -> HTMLResponse:
    """The form: first the dataset, then who is to hold what on it."""
    return _page(Setback(viewer), {"dataset": dataset.strip()[:64]})


@router.post("/grants/new")
def give(viewer: MemberNow, sent: Sent) -> Response:
    """Give it."""

    def do(viewer: Viewer) -> Response:
        _check_inside(viewer)
        kind, _, id_ = sent.get("holder", "").partition(":")
        fields = {name: sent.get(name, "") for name in _FIELDS} | ({kind: id_} if kind in ("person", "team") else {})
        with viewer.parts.database.transaction() as tx:
            made = bulk_grants.give(viewer.parts, tx, viewer.caller, fields, clock(tx))
        return go(f"/grants/{made.id}")

    return act(viewer, sent, do, lambda back: _page(back, sent), needs=fresh)


def _check_inside(viewer: Viewer) -> None:
    if not viewer.inside:
        raise Forbidden("People of a vendor cannot give grants.", advice="Request a role on a dataset.")


def _page(back: Setback, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    _check_inside(viewer)
    with viewer.parts.database.transaction() as tx:
        known = tx.scalars(select(Dataset).where(Dataset.status == "active").order_by(Dataset.slug).limit(_MOST)).all()
        of = dataset_seen(tx, viewer.caller, sent["dataset"]) if sent.get("dataset") else None
        vendors = [offer.vendor_id for offer in offers_of(tx, viewer.caller, of)] if of else []
        names = {row.id: row.name for row in tx.execute(select(Vendor.id, Vendor.name).where(Vendor.id.in_(vendors)))}
        teams = tx.scalars(select(Team).where(Team.vendor_id.in_(vendors)).order_by(Team.name).limit(_MOST))
        holders = [(f"team:{team.id}", f"Team {team.name} ({names[team.vendor_id]})") for team in teams]
        active = (Person.vendor_id.in_(vendors), Person.status == "active")
        people = tx.scalars(select(Person).where(*active).order_by(Person.name, Person.id).limit(_MOST)).all()
        called = each_told_apart(people)
        holders += [(f"person:{one.id}", f"{called[one.id]} ({names[one.vendor_id or '']})") for one in people]
        return render(
            "owner/new_grant.html",
            viewer=viewer,
            status=back.status if back.trouble or back.panel else 200,
            trouble=back.trouble,
            panel=back.panel,
            filled=sent,
            datasets=[(item.slug, item.title) for item in known],
            dataset=of,
            holders=holders,
            roles=roles_reaching(tx, viewer.parts.rulebook, of.slug, of.labels) if of else [],
            slices=[item.name for item in slices_of(tx, [of.id])[of.id]] if of else [],
        )
