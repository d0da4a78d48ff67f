"""Leases: the list, one lease as it lives and ends, and asking for its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.auditing.reading_events import Told, of_lease
from broker.auditing.sentences import sentences
from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Denied, Invalid
from broker.base.paging import Page, Window
from broker.kinds.discovery import kinds
from broker.leases import holdings, renewing, sweeping
from broker.leases.holdings import LEASES
from broker.models import LIVE_STATES, Lease, Slice
from broker.registry.naming import LONGEST, names_of, names_seen, person_meant
from broker.web.api.holding_shapes import LeaseFull, lease_full, leases_shown
from broker.web.portal.acting import Setback, act, go, trouble_of
from broker.web.portal.pages import by_whom, render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_BAR_WIDTH = 1000
_NOTHING: Mapping[str, Any] = {"leases": [], "failing": [], "by_hand": {}}
# Why a lease was told to end, in words.
_CAUSES = {
    "abandoned": "its credential was not delivered in time",
    "closed": "the installation was closed",
    "disqualified": "it no longer qualified",
    "slice_changed": "the table behind its slice changed",
    "expired": "it expired",
    "grant_revoked": "its grant was revoked",
    "offer_withdrawn": "the dataset is no longer offered",
    "revoked": "someone revoked it",
    "team_left": "its holder is no longer in the team",
    "vanished": "its backend no longer showed the credential",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of what happened to a lease; `event` is empty where the reader may not open it."""

    at: datetime
    says: str
    event: str = ""


@router.get("/leases")
def leases(
    viewer: MemberNow,
    cursor: str | None = None,
    state: str = "live",
    dataset: str = "",
    person: str = "",
    kind: str = "",
) -> HTMLResponse:
    """Leases: those that could not be ended first, then the others, ending soonest first; or all, newest first."""
    asked = {"state": state, "dataset": dataset.strip(), "person": person[:LONGEST], "kind": kind}
    with viewer.parts.database.transaction() as tx:
        try:
            asked["person"] = person_meant(tx, viewer.caller, asked["person"]) or ""
            trouble = None
        except Invalid as error:
            trouble = trouble_of(error)
        names = names_seen(tx, viewer.caller, [asked["person"]])
    choices = [("", "Any"), *((name, name) for name in sorted(kinds))]
    context: dict[str, Any] = {"asked": asked, "state": state, "kinds": choices, "names": names, "trouble": trouble}
    if trouble:
        return render(
            "leases.html",
            viewer=viewer,
            status=trouble.status,
            page=Page(items=[], next_cursor=None),
            **context,
            **_NOTHING,
        )
    if state != "all":
        return render(
            "leases.html", viewer=viewer, page=Page(items=[], next_cursor=None), **context, **_live(viewer, asked)
        )
    with viewer.parts.database.transaction() as tx:
        page = LEASES.page(
            tx, viewer.caller, Window(cursor), dataset=asked["dataset"] or None, person=asked["person"] or None
        )
        found = leases_shown(tx, page.items)
    return render("leases.html", viewer=viewer, page=page, leases=found, **context)


@router.get("/live/leases")
def live_leases(viewer: MemberNow, dataset: str = "", person: str = "", kind: str = "") -> HTMLResponse:
    """Live leases, as they change by themselves."""
    asked = {"dataset": dataset, "person": person, "kind": kind}
    return render("parts/live_leases.html", viewer=viewer, **_live(viewer, asked))


def _live(viewer: Viewer, asked: Mapping[str, str]) -> dict[str, Any]:
    with viewer.parts.database.transaction() as tx:
        items = holdings.live_leases(
            tx,
            viewer.caller,
            dataset=asked["dataset"] or None,
            person=asked["person"] or None,
            kind=asked["kind"] or None,
        )
        found = leases_shown(tx, items)
        by_hand = _by_hand(viewer, tx, items)
    return {
        "leases": found,
        "failing": [lease for lease in found if lease.state == "revoke_failed"],
        "by_hand": by_hand,
    }


@router.get("/leases/{lease_id}")
def one_lease(lease_id: str, viewer: MemberNow) -> HTMLResponse:
    """One lease: its bar, its state, how it ends, and what happened to it."""
    return _page(Setback(viewer), lease_id)


@router.get("/live/leases/{lease_id}")
def live_lease(lease_id: str, viewer: MemberNow, confirming: bool = False) -> HTMLResponse:
    """The part of a lease's page that changes by itself."""
    return render("parts/lease_state.html", viewer=viewer, confirming=confirming, **_looked_at(viewer, lease_id))


@router.post("/leases/{lease_id}/renew")
def renew(lease_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Let the same credential live longer, if everything holds now."""

    def do(viewer: Viewer) -> Response:
        try:
            renewing.renew(viewer.parts, viewer.caller, lease_id)
        except Denied as denied:
            return _page(Setback(viewer), lease_id, refused=by_whom(denied.decision.reasons))
        return go(f"/leases/{lease_id}")

    def needs(viewer: Viewer) -> int | None:
        return renewing.preview(viewer.parts, viewer.caller, lease_id).factor_needed

    return act(viewer, sent, do, lambda setback: _page(setback, lease_id), needs=needs)


@router.post("/leases/{lease_id}/revoke")
def revoke(lease_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Ask for the end of a lease; its page shows when the backend has confirmed it."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            holdings.revoke_lease(tx, viewer.caller, lease_id, sent.get("reason", ""), clock(tx))
        return go(f"/leases/{lease_id}")

    return act(viewer, sent, do, lambda setback: _page(setback, lease_id))


def bar(lease: LeaseFull, now: datetime) -> dict[str, int]:
    """Where issue, now and the end lie on a bar of a thousand units; `spent` is the part of its time used up."""
    whole = max(1.0, (lease.expires_at - lease.created_at).total_seconds())
    until = min(now, lease.ended_at or lease.ending_since or now)
    spent = min(1.0, max(0.0, (until - lease.created_at).total_seconds() / whole))
    return {"width": _BAR_WIDTH, "spent": round(spent * _BAR_WIDTH)}


def _by_hand(viewer: Viewer, tx: Transaction, leases: Sequence[Lease]) -> dict[str, str]:
    """What an operator would type, by lease id, for each that its backend does not let go of."""
    failing = [lease for lease in leases if lease.state == "revoke_failed"]
    if not failing:
        return {}
    wanted = select(Slice.id, Slice.binding).where(Slice.id.in_({lease.slice_id for lease in failing}))
    bindings: dict[str, dict[str, Any]] = dict(tx.execute(wanted).all())
    return {
        lease.id: kinds[lease.kind].by_hand(sweeping.to_end(viewer.parts, lease, bindings[lease.slice_id], viewer.now))
        for lease in failing
    }


def _page(setback: Setback, lease_id: str, refused: Any = None) -> HTMLResponse:
    viewer = setback.viewer
    return render(
        "lease.html",
        viewer=viewer,
        status=403 if refused else setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        refused=refused,
        confirming=setback.panel is not None,
        **_looked_at(viewer, lease_id),
    )


def _looked_at(viewer: Viewer, lease_id: str) -> dict[str, Any]:
    with viewer.parts.database.transaction() as tx:
        found = holdings.lease(tx, viewer.caller, lease_id)
        lease = lease_full(tx, viewer.caller, found)
        happened = _happened(tx, lease, of_lease(tx, viewer.caller, found))
    return {
        "lease": lease,
        "live": lease.state in LIVE_STATES,
        "may_renew": viewer.caller.subject == lease.holder and kinds[lease.kind].renewable,
        "bar": bar(lease, viewer.now),
        "happened": happened,
    }


def _happened(tx: Transaction, lease: LeaseFull, events: Sequence[Told]) -> list[Happening]:
    ids = {event.actor.removeprefix("person:") for event in events}
    names = {f"person:{id_}": name for id_, name in names_of(tx, ids).items()}
    names |= {lease.holder: lease.holder_name, "system": "Guestkey"}
    return [
        Happening(event.at, _said(event, names.get(event.actor, event.actor)), event.id if event.open else "")
        for event in events
    ]


def _said(event: Told, who: str) -> str:
    # On the lease's own page its name would say nothing.
    said = sentences().get(event.kind, event.kind).replace(" {whom}", "").replace(" ({cause})", "").format(who=who)
    if event.kind != "lease.ending" or not event.cause:
        return said
    return f"{said.rstrip('.')}: {_CAUSES.get(event.cause, event.cause.replace('_', ' '))}."
