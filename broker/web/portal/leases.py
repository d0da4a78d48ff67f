"""Grants and leases: the lists, one of each, giving a grant without a request, and ending them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.responses import Response

from broker.auditing.reading_events import EventText, of_lease
from broker.auditing.sentences import sentences
from broker.base.database import Transaction
from broker.base.errors import Denied, Invalid
from broker.base.paging import Page, Window
from broker.gate.explain import roles_reaching
from broker.kinds.discovery import kinds
from broker.leases import holdings, renewing, sweeping
from broker.models import LIVE_STATES, Grant
from broker.registry.datasets import DATASETS, dataset
from broker.registry.naming import LONGEST, names_of, names_seen, person_meant
from broker.registry.slices import slices_of
from broker.requests import bulk_grants
from broker.web.api.grants import grants_shown
from broker.web.api.leases import LeaseFull, lease_full, leases_shown
from broker.web.portal.forms import Context, PortalRequest, Trouble, act, form, page, trouble_of
from broker.web.portal.pages import by_whom
from broker.web.portal.viewer import Viewer

_BAR_WIDTH = 1000
_FIELDS = ("dataset", "person", "kind")
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


@page("/leases", template="leases.html")
def all_leases(req: PortalRequest) -> Context:
    """Leases: those that could not be ended first, then the others, ending soonest first; or all, newest first."""
    asked = {"state": req.asked("state") or "live", **{name: req.asked(name)[:LONGEST] for name in _FIELDS}}
    shown: Context = {"page": Page(items=[], next_cursor=None), "leases": [], "failing": [], "by_hand": {}}
    shown["trouble"] = None
    try:
        asked["person"] = person_meant(req.tx, req.caller, asked["person"]) or ""
        if asked["state"] == "all":
            dataset, person = asked["dataset"] or None, asked["person"] or None
            found = holdings.LEASES.page(req.tx, req.caller, req.window(), dataset=dataset, person=person)
            shown |= {"page": found, "leases": leases_shown(req.tx, found.items)}
        else:
            shown |= _live(req, asked)
    except Invalid as error:
        shown["trouble"] = trouble_of(error)
    names = names_seen(req.tx, req.caller, [asked["person"]])
    choices = [("", "Any"), *((name, name) for name in sorted(kinds))]
    return {**shown, "asked": asked, "kinds": choices, "names": names}


@page("/live/leases", template="parts/live_leases.html")
def live_leases(req: PortalRequest) -> Context:
    """Live leases, as they change by themselves."""
    return _live(req, {name: req.asked(name) for name in _FIELDS})


def _live(req: PortalRequest, asked: Mapping[str, str]) -> Context:
    items = holdings.live_leases(req.tx, req.caller, **{name: asked[name] or None for name in _FIELDS})
    found = leases_shown(req.tx, items)
    return {
        "leases": found,
        "failing": [lease for lease in found if lease.state == "revoke_failed"],
        "by_hand": sweeping.by_hand(req.parts, req.tx, items, req.viewer.now),
    }


@page("/leases/{lease_id}", template="lease.html", live=("/live/leases/{lease_id}", "parts/lease_state.html"))
def one_lease(req: PortalRequest, lease_id: str) -> Context:
    """One lease: its bar, its state, how it ends, and what happened to it."""
    found = holdings.lease(req.tx, req.caller, lease_id)
    lease = lease_full(req.tx, req.caller, found)
    confirming = req.failure is not None and req.failure.panel is not None
    return {
        "lease": lease,
        "live": lease.state in LIVE_STATES,
        "may_renew": req.caller.subject == lease.holder and kinds[lease.kind].renewable,
        "bar": bar(lease, req.viewer.now),
        "happened": _happened(req.tx, lease, of_lease(req.tx, req.caller, found)),
        "confirming": confirming or req.asked("confirming").lower() == "true",
        "refused": None,
    }


def _factor_missing(viewer: Viewer, _sent: Mapping[str, str]) -> int | None:
    return renewing.preview(viewer.parts, viewer.caller, viewer.request.path_params["lease_id"]).factor_needed


@form("/leases/{lease_id}/renew", rerender=one_lease, needs=_factor_missing)
def renew(req: PortalRequest, lease_id: str) -> str | Response:
    """Let the same credential live longer, if everything holds now."""
    try:
        renewing.renew(req.parts, req.caller, lease_id)
    except Denied as denied:
        return one_lease.answer(req.viewer, refused=by_whom(denied.decision.reasons), status=403)
    return f"/leases/{lease_id}"


# Its page shows when the backend has confirmed the end.
act("/leases/{lease_id}/revoke", holdings.revoke_lease, "reason", rerender=one_lease, needs=None)


def bar(lease: LeaseFull, now: datetime) -> dict[str, int]:
    """Where issue, now and the end lie on a bar of a thousand units; `spent` is the part of its time used up."""
    whole = max(1.0, (lease.expires_at - lease.created_at).total_seconds())
    until = min(now, lease.ended_at or lease.ending_since or now)
    spent = min(1.0, max(0.0, (until - lease.created_at).total_seconds() / whole))
    return {"width": _BAR_WIDTH, "spent": round(spent * _BAR_WIDTH)}


def _happened(tx: Transaction, lease: LeaseFull, events: Sequence[EventText]) -> list[Happening]:
    ids = {event.actor.removeprefix("person:") for event in events}
    names = {f"person:{id_}": name for id_, name in names_of(tx, ids).items()}
    names |= {lease.holder: lease.holder_name, "system": "Guestkey"}
    return [
        Happening(event.at, _said(event, names.get(event.actor, event.actor)), event.id if event.open else "")
        for event in events
    ]


def _said(event: EventText, who: str) -> str:
    # On the lease's own page its name would say nothing.
    said = sentences().get(event.kind, event.kind).replace(" {whom}", "").replace(" ({cause})", "").format(who=who)
    if event.kind != "lease.ending" or not event.cause:
        return said
    return f"{said.rstrip('.')}: {_CAUSES.get(event.cause, event.cause.replace('_', ' '))}."


_MOST_DATASETS = 500
_GRANT_FIELDS = ("dataset", "role", "slice", "purpose", "until")


@page("/grants", template="owner/grants.html")
def all_grants(req: PortalRequest) -> Context:
    """Grants, newest first, narrowed by what the address says."""
    state = req.asked("state") or "current"
    asked = {"dataset": req.asked("dataset")[:64], "person": req.asked("person")[:LONGEST], "state": state}
    found: Page[Grant] = Page(items=[], next_cursor=None)
    trouble: Trouble | None = None
    try:
        whom = person_meant(req.tx, req.caller, asked["person"])
        wanted = state if state in ("current", "ended") else None
        found = holdings.GRANTS.page(
            req.tx, req.caller, req.window(), dataset=asked["dataset"] or None, person=whom, state=wanted
        )
        asked["person"] = whom or ""
    except Invalid as error:
        trouble = trouble_of(error)
    return {
        "trouble": trouble,
        "page": found,
        "grants": grants_shown(req.tx, found.items),
        "asked": asked,
        "names": names_seen(req.tx, req.caller, [asked["person"]]),
    }


@page("/grants/new", template="owner/new_grant.html")
def new_grant(req: PortalRequest) -> Context:
    """The form: first the dataset, then who is to hold what on it."""
    bulk_grants.require_giver(req.caller)
    filled = req.prefilled("dataset")
    known = DATASETS.page(req.tx, req.caller, Window(limit=_MOST_DATASETS), status="active").items
    shown = {"filled": filled, "datasets": sorted((item.slug, item.title) for item in known), "dataset": None}
    if not filled.get("dataset"):
        return shown
    of = dataset(req.tx, req.caller, filled["dataset"])
    return {
        **shown,
        "dataset": of,
        "holders": bulk_grants.possible_holders(req.tx, req.caller, of),
        "roles": roles_reaching(req.tx, req.parts.rulebook, of.slug, of.labels),
        "slices": [item.name for item in slices_of(req.tx, [of.id])[of.id]],
    }


@form("/grants/new", rerender=new_grant)
def give(req: PortalRequest) -> str:
    """Give it."""
    kind, _, id_ = req.field("holder").partition(":")
    fields = {name: req.field(name) for name in _GRANT_FIELDS} | ({kind: id_} if kind in ("person", "team") else {})
    return f"/grants/{bulk_grants.give(req.parts, req.tx, req.caller, fields, req.now).id}"


@page("/grants/{grant_id}", template="grant.html")
def one_grant(req: PortalRequest, grant_id: str) -> Context:
    """One grant: what it lets its holder do, until when, and the leases it carries."""
    found = holdings.grant(req.tx, req.caller, grant_id)
    held = holdings.LEASES.page(req.tx, req.caller, Window(limit=100), dataset=found.dataset_id)
    shown = grants_shown(req.tx, [found])[0]
    return {
        "grant": shown,
        "leases": leases_shown(req.tx, [lease for lease in held.items if lease.grant_id == grant_id]),
        "may_end": holdings.may_end(req.tx, req.caller, found),
        "may_use": shown.state == "current" and holdings.may_use(req.caller, found),
    }


act("/grants/{grant_id}/revoke", holdings.revoke_grant, "reason", rerender=one_grant, needs=None)
