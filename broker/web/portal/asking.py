"""Asking for a role on a dataset, and following what one asked for. Deciding is `reviewing`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.base.paging import Window
from broker.identity.permissions import is_lead
from broker.models import Person, Team
from broker.registry.datasets import DATASETS, dataset
from broker.registry.naming import each_told_apart
from broker.requests import requests
from broker.requests.requests import NewRequest
from broker.web.api.dataset_shapes import full
from broker.web.api.request_shapes import RequestShown, shown
from broker.web.portal.acting import Setback, act, go
from broker.web.portal.pages import duration, render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
DAY = 86400
PERIODS = (DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 90 * DAY)


@router.get("/ask")
def ask_page(viewer: MemberNow, dataset: str = "", again: str = "") -> HTMLResponse:
    """The form for asking; filled from an earlier request if `again` names one."""
    filled = {"dataset": dataset}
    if again:
        with viewer.parts.database.transaction() as tx:
            before = shown(tx, viewer.caller, [requests.request(tx, viewer.caller, again)])[0]
        filled = {
            "dataset": before.dataset,
            "role": before.role,
            "slice": before.slice or "",
            "purpose": before.purpose,
            "period": str(before.period),
            "holder": _holder_of(before),
        }
    return _form(Setback(viewer), filled)


@router.post("/requests")
def ask(viewer: MemberNow, sent: Sent) -> Response:
    """Ask."""

    def do(viewer: Viewer) -> Response:
        new = _new(sent)
        with viewer.parts.database.transaction() as tx:
            made = requests.ask(viewer.parts, tx, viewer.caller, new, clock(tx))
        return go(f"/requests/{made.id}")

    return act(viewer, sent, do, lambda setback: _form(setback, sent))


@router.get("/requests")
def own_requests(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """What the person asked for."""
    with viewer.parts.database.transaction() as tx:
        page = requests.REQUESTS.page(tx, viewer.caller, Window(cursor), view="mine")
        return render("requests.html", viewer=viewer, page=page, requests=shown(tx, viewer.caller, page.items))


def _form(setback: Setback, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        offered = DATASETS.page(tx, viewer.caller, Window(limit=200), status="active").items
        context = _choices(tx, viewer, filled.get("dataset", "")) if filled.get("dataset") else {"chosen": None}
        holders = _holders(tx, viewer)
    return render(
        "ask.html",
        viewer=viewer,
        status=setback.status if setback.trouble else 200,
        trouble=setback.trouble,
        filled=filled,
        datasets=[(item.slug, item.title) for item in offered],
        periods=[(seconds, duration(seconds)) for seconds in PERIODS],
        holders=holders,
        lapses=viewer.parts.settings.request_lifetime,
        **context,
    )


def _choices(tx: Transaction, viewer: Viewer, slug: str) -> dict[str, Any]:
    chosen = full(viewer.parts, tx, viewer.caller, dataset(tx, viewer.caller, slug))
    slices = [(item.name, item.name, item.description) for item in chosen.slices if item.state == "ready"]
    return {"chosen": chosen, "roles": [(role, role.capitalize()) for role in chosen.roles], "slices": slices}


def _holder_of(before: RequestShown) -> str:
    if before.team:
        return f"team:{before.team}"
    return f"person:{before.for_person.id}" if before.for_person else ""


def _holders(tx: Transaction, viewer: Viewer) -> list[tuple[str, str]]:
    """Whom a lead may ask for: the vendor's people and teams, each with what it is."""
    vendor_id = viewer.caller.vendor_id
    if not is_lead(viewer.caller, vendor_id):
        return []
    staff = (Person.vendor_id == vendor_id) & (Person.status == "active") & (Person.id != viewer.caller.id)
    people = tx.scalars(select(Person).where(staff).order_by(Person.name, Person.id))
    teams = tx.execute(select(Team.id, Team.name).where(Team.vendor_id == vendor_id).order_by(Team.name))
    named = [(f"person:{id_}", called) for id_, called in each_told_apart(people).items()]
    return [*named, *((f"team:{row.id}", f"the team {row.name}") for row in teams)]


def _new(sent: Mapping[str, str]) -> NewRequest:
    if not sent.get("role"):
        raise Invalid("Choose a role.", field="/role")
    if not sent.get("purpose", "").strip():
        raise Invalid("Enter a purpose.", field="/purpose")
    if not sent.get("period", "").isdecimal():
        raise Invalid("Choose a time.", field="/period")
    sort, _, holder = sent.get("holder", "").partition(":")
    return NewRequest(
        dataset=sent.get("dataset", ""),
        role=sent["role"],
        purpose=sent["purpose"],
        period=int(sent["period"][:9]),
        slice=sent.get("slice") or None,
        team_id=holder if sort == "team" else None,
        person_id=holder if sort == "person" else None,
    )
