"""A grant's page, getting a credential from it, and the page that shows one once.

The POST that gets a credential answers with it directly, never stored. Its form carries an id of its own: sent
again, by a reload or a second press, it finds the lease it made and shows no secret.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.access import explain, holdings, issuing
from broker.access.facts import Ask
from broker.access.paging import Window
from broker.access.slices import slices_of
from broker.database import now as clock
from broker.errors import Denied, Invalid
from broker.models import Slice
from broker.policies import Decision
from broker.web.api.holding_shapes import GrantShown, grants_shown, leases_shown
from broker.web.portal.acting import Panel, Setback, act, asked, go
from broker.web.portal.pages import by_whom, duration, render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
LIFETIMES = (300, 900, 1800, 3600, 7200, 14400)
_FORM_ID = re.compile(r"[A-Za-z0-9_-]{20,64}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A slice one could get a credential for, and what the gate says of it now."""

    slice: Slice
    decision: Decision

    @property
    def open(self) -> bool:
        """Whether nothing but perhaps a fresh second factor is missing."""
        return self.decision.allowed or self.decision.factor_needed is not None


@router.get("/grants/{grant_id}")
def one_grant(grant_id: str, viewer: MemberNow) -> HTMLResponse:
    """One grant: what it lets its holder do, until when, and the leases it carries."""
    return _grant_page(Setback(viewer), grant_id, {})


@router.post("/grants/{grant_id}/revoke")
def revoke(grant_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """End a grant and every lease it carries."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            holdings.revoke_grant(tx, viewer.caller, grant_id, sent.get("reason", ""), clock(tx))
        return go(f"/grants/{grant_id}")

    return act(viewer, sent, do, lambda setback: _grant_page(setback, grant_id, sent))


@router.get("/grants/{grant_id}/credential")
def credential_page(grant_id: str, viewer: MemberNow) -> HTMLResponse:
    """Choose a slice and a lifetime; what is checked is checked before the button is pressed."""
    return _credential_page(Setback(viewer), grant_id, {})


@router.post("/grants/{grant_id}/credential")
def get_credential(grant_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Get a credential and see it once, or every reason why there is none."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            grant = grants_shown(tx, [holdings.grant(tx, viewer.caller, grant_id)])[0]
        ask = _ask(grant, sent)
        try:
            handed = issuing.issue(viewer.parts, viewer.caller, ask, idempotency_key=_key(sent))
        except Denied as error:
            return _denied(viewer, grant, ask, error)
        with viewer.parts.database.transaction() as tx:
            lease = leases_shown(tx, [handed.lease])[0]
        template = "credential_shown.html" if handed.values is not None else "credential_gone.html"
        return render(template, viewer=viewer, lease=lease, values=handed.values, again=grant_id)

    def needs(viewer: Viewer) -> int | None:
        with viewer.parts.database.transaction() as tx:
            grant = grants_shown(tx, [holdings.grant(tx, viewer.caller, grant_id)])[0]
        return explain.why(viewer.parts, viewer.caller, _ask(grant, sent)).factor_needed

    return act(viewer, sent, do, lambda setback: _credential_page(setback, grant_id, sent), needs=needs)


def _credential_page(setback: Setback, grant_id: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        found = holdings.grant(tx, viewer.caller, grant_id)
        grant = grants_shown(tx, [found])[0]
        slices = [one for one in slices_of(tx, [found.dataset_id])[found.dataset_id] if _covered(grant, one)]
    choices = [Choice(one, _foreseen(viewer, grant, one.name)) for one in slices]
    opened = [choice for choice in choices if choice.open]
    return render(
        "credential.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel or (None if setback.trouble else _panel_ahead(viewer, opened)),
        grant=grant,
        choices=choices,
        chosen=filled.get("slice") or (opened[0].slice.name if opened else ""),
        lifetimes=_lifetimes(opened),
        filled=filled,
        form_id=secrets.token_urlsafe(24),
        may_use=_may_use(viewer, grant),
    )


def _foreseen(viewer: Viewer, grant: GrantShown, slice_name: str) -> Decision:
    return explain.why(viewer.parts, viewer.caller, Ask(grant.dataset, slice=slice_name))


def _panel_ahead(viewer: Viewer, opened: Sequence[Choice]) -> Panel | None:
    """The question for a second factor, if it is the only thing missing for every slice that is open."""
    ages = [choice.decision.factor_needed for choice in opened]
    needed = [age for age in ages if age is not None]
    if not needed or len(needed) < len(ages):
        return None
    return replace(asked(viewer, min(needed)), interrupts=False)


def _lifetimes(opened: Sequence[Choice]) -> list[tuple[str, str]]:
    bounds = [choice.decision.bounds.max_lifetime for choice in opened if choice.decision.bounds is not None]
    longest = max(bounds, default=3600)
    usual = duration(min(issuing.DEFAULT_LIFETIME, longest))
    return [("", f"{usual}, as usual")] + [
        (str(seconds), duration(seconds))
        for seconds in sorted({*LIFETIMES, longest})
        if seconds <= longest and seconds != issuing.DEFAULT_LIFETIME
    ]


def _denied(viewer: Viewer, grant: GrantShown, ask: Ask, error: Denied) -> HTMLResponse:
    """Every reason, grouped by who can do something about it."""
    decision = error.decision
    return render(
        "denied.html",
        viewer=viewer,
        status=403,
        grant=grant,
        slice=ask.slice,
        decision=decision,
        decision_id=error.decision_id,
        groups=by_whom(decision.reasons),
        checks=len(decision.passed) + len(decision.reasons),
    )


def _grant_page(setback: Setback, grant_id: str, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        found = holdings.grant(tx, viewer.caller, grant_id)
        held = holdings.list_leases(tx, viewer.caller, Window(limit=100), holdings.Filters(dataset=found.dataset_id))
        context: dict[str, Any] = {
            "grant": grants_shown(tx, [found])[0],
            "leases": leases_shown(tx, [lease for lease in held.items if lease.grant_id == grant_id]),
            "may_end": holdings.may_end(tx, viewer.caller, found),
        }
    context["may_use"] = _may_use(viewer, context["grant"])
    status = setback.status if setback.trouble else 200
    return render("grant.html", viewer=viewer, status=status, trouble=setback.trouble, filled=filled, **context)


def _may_use(viewer: Viewer, grant: GrantShown) -> bool:
    """Whether a credential from this grant would be the viewer's own; a team's grant is shown to members only."""
    own = grant.holder == viewer.caller.subject
    return grant.state == "current" and (own or grant.holder.startswith("team:"))


def _covered(grant: GrantShown, one: Slice) -> bool:
    return grant.slice in (None, one.name)


def _ask(grant: GrantShown, sent: Mapping[str, str]) -> Ask:
    chosen = sent.get("slice") or grant.slice
    if not chosen:
        raise Invalid("Choose a slice.", field="/slice")
    lifetime = sent.get("lifetime", "")
    if lifetime and not (lifetime.isascii() and lifetime.isdigit() and 0 < len(lifetime) < 7):
        raise Invalid("This must be a number of seconds.", field="/lifetime")
    return Ask(grant.dataset, slice=chosen, lifetime=int(lifetime) if lifetime else None)


def _key(sent: Mapping[str, str]) -> str:
    form_id = sent.get("form_id", "")
    if _FORM_ID.fullmatch(form_id) is None:
        raise Invalid("This form is not one of ours.", advice="Open the page again and send it from there.")
    return f"form {form_id}"
