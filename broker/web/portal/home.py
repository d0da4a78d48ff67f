"""Home: what the person holds, asked for and may ask for; the page of those who still wait; confirming; search."""

from __future__ import annotations

from starlette.responses import Response

from broker.auditing import reading_events
from broker.auditing.reading_events import EventFilters
from broker.auditing.searching import Hit, search
from broker.auditing.sentences import told
from broker.base.ids import is_id
from broker.base.paging import Window
from broker.identity import invitations
from broker.identity.login import safe_path
from broker.kinds.names import lease_of
from broker.leases import holdings
from broker.registry.datasets import DATASETS
from broker.registry.naming import bare, names_of
from broker.requests import requests
from broker.suspensions import reports
from broker.web.api.common import FRESH_SECONDS
from broker.web.api.datasets import datasets_shown
from broker.web.api.grants import grants_shown
from broker.web.api.leases import leases_shown
from broker.web.api.requests import requests_shown
from broker.web.portal.forms import Context, PortalRequest, form, go, page, router
from broker.web.portal.pages import duration, render
from broker.web.portal.viewer import AnybodyNow

_FEW = Window(limit=10)


@page("/", template="home.html")
def home(req: PortalRequest) -> Context | Response:
    """What is held now, what was asked for, and what there is; to an auditor, what happened."""
    if req.caller.is_auditor and not req.caller.is_admin:
        return _of_auditor(req)
    return {
        **_own(req),
        "datasets": datasets_shown(req.tx, DATASETS.page(req.tx, req.caller, _FEW, status="active").items),
        "notices": invitations.recovery_notices(req.tx, req.caller, req.viewer.now),
    }


@page("/live/home", template="parts/own.html")
def live_home(req: PortalRequest) -> Context:
    """The part of the home page that changes by itself."""
    return _own(req)


def _own(req: PortalRequest) -> Context:
    # First: no transaction is held while the key store is asked.
    answers = req.parts.vault.answers()
    leases = holdings.LEASES.page(req.tx, req.caller, Window(limit=20), person=req.caller.id, state="live").items
    mine = requests.REQUESTS.page(req.tx, req.caller, _FEW, view="mine").items
    inside = req.viewer.inside
    return {
        "leases": leases_shown(req.tx, leases),
        "grants": grants_shown(req.tx, holdings.own_grants(req.tx, req.caller)),
        "requests": requests_shown(req.tx, req.caller, mine),
        "queued": inside and bool(requests.REQUESTS.page(req.tx, req.caller, Window(limit=1), view="queue").items),
        "key_store": answers,
    }


def _of_auditor(req: PortalRequest) -> Response:
    happened = reading_events.list_events(req.tx, req.caller, _FEW, EventFilters()).items
    return render(
        "home_auditor.html",
        viewer=req.viewer,
        events=told(req.tx, req.caller, happened),
        suspensions=reports.SUSPENSIONS.page(req.tx, req.caller, _FEW, state="open").items,
        notices=invitations.recovery_notices(req.tx, req.caller, req.viewer.now),
    )


@router.get("/waiting")
def waiting(viewer: AnybodyNow) -> Response:
    """For those who have joined and wait for an admin."""
    if viewer.found.status == "active":
        return go("/")
    of = viewer.caller.vendor_id
    with viewer.parts.database.transaction() as tx:
        vendor = names_of(tx, [of]).get(of) if of else None
    return render("waiting.html", viewer=viewer, vendor=vendor)


@page("/confirm", template="confirm.html")
def confirm_page(req: PortalRequest) -> Context:
    """Prove the second factor ahead of need."""
    why = f"If you confirm now, you are rarely asked again within {duration(FRESH_SECONDS)}."
    return {"ahead": FRESH_SECONDS, "why": why, "path": safe_path(req.field("next") or req.asked("next") or "/")}


@form("/confirm", rerender=confirm_page, needs=lambda *_: FRESH_SECONDS)
def confirm(req: PortalRequest) -> str:
    """Prove it, and go back to where one was."""
    return safe_path(req.field("next") or "/")


@page("/search", template="search.html")
def search_page(req: PortalRequest) -> Context | Response:
    """What was found; an id leads straight to what it names."""
    asked = req.asked("q")
    hits = search(req.tx, req.caller, asked)
    if len(hits) == 1 and is_id(lease_of(bare(asked.lower()))):
        return go(_path(hits[0]))
    return {"asked": asked[:100], "hits": [(hit, _path(hit)) for hit in hits]}


def _path(hit: Hit) -> str:
    return f"/{hit.place}/{hit.id}"
