"""Getting a credential from a grant, and the page that shows one once.

The POST that gets a credential answers with it directly, never stored. Its form carries an id of its own: sent
again, by a reload or a second press, it finds the lease it made and shows no secret. The script of pages shown once
puts `/already-shown` in their place in the browser's history; going back would otherwise ask to send the form again, or
show an error of the browser's.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Denied, Invalid
from broker.base.ids import is_id
from broker.base.private_keys import is_private
from broker.gate import explain
from broker.gate.facts import Ask
from broker.identity.login import safe_path
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds, serving
from broker.leases import holdings, issuing
from broker.models import Grant, Slice
from broker.policies import Decision
from broker.registry.slices import slices_of
from broker.web.api.grants import GrantShown, grants_shown
from broker.web.api.leases import leases_shown
from broker.web.portal.forms import Context, PortalRequest, form, page
from broker.web.portal.pages import by_whom, duration, render
from broker.web.portal.viewer import Viewer

LIFETIMES = (300, 900, 1800, 3600, 7200, 14400)
# Between a slice and an action in a form's answer; no slice's name has it.
_ACTION = "/"
_LONGEST_KEY = 16_384
_FORM_ID = re.compile(r"[A-Za-z0-9_-]{20,64}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A slice and an action one could get a credential for, and what the gate says of it now.

    `longest`: how many seconds one could live at most, once a second factor that is asked for was proven.
    """

    slice: Slice
    action: str
    decision: Decision
    longest: int

    @property
    def value(self) -> str:
        """What the form sends for it: the slice's name, and the action where it is more than reading."""
        return self.slice.name if self.action == "read" else f"{self.slice.name}{_ACTION}{self.action}"

    @property
    def open(self) -> bool:
        """Whether nothing but perhaps a fresh second factor is missing."""
        return self.decision.allowed or self.decision.factor_needed is not None


@page("/grants/{grant_id}/credential", template="credential.html")
def credential_page(req: PortalRequest, grant_id: str) -> Context:
    """Choose a slice and a lifetime; what is checked is checked before the button is pressed."""
    filled = dict(req.sent)
    if is_private(filled.get("public_key", "")):
        # Pasted in error, and refused; it is not sent about once more.
        filled["public_key"] = ""
    found = holdings.grant(req.tx, req.caller, grant_id)
    grant = grants_shown(req.tx, [found])[0]
    choices = [_foreseen(req, grant, one, action) for one in _slices(req.tx, found) for action in sorted(one.actions)]
    opened = [choice for choice in choices if choice.open]
    served = {kind.name: kind for choice in opened for kind in serving(choice.slice.kind, choice.action)}
    chosen = filled.get("slice") or (opened[0].value if opened else "")
    wanted = kinds.get(filled.get("kind") or next(iter(served), ""))
    name, _, action = chosen.partition(_ACTION)
    return {
        "grant": grant,
        "choices": choices,
        "chosen": chosen,
        "typed": _typed(wanted, grant.dataset, name, action) if wanted and chosen else f"guestkey why {grant.dataset}",
        "closed": _closed(req, grant, choices),
        "kinds": [(kind.name, kind.name, kind.use.about) for kind in served.values()],
        # What must be brought for some.
        "proofs": [(kind.name, kind.proof) for kind in served.values() if kind.proof is not None],
        "lifetimes": _lifetimes(opened),
        "filled": filled,
        "form_id": secrets.token_urlsafe(24),
        "may_use": grant.state == "current" and holdings.may_use(req.caller, found),
        "ahead": None if req.failure and req.failure.trouble else _factor_ahead(opened),
    }


def _factor_missing(viewer: Viewer, sent: Mapping[str, str]) -> int | None:
    with PortalRequest(viewer, sent) as req:
        ask = _asked(req, viewer.request.path_params["grant_id"])[1]
        return explain.explain_access(req.parts, req.tx, req.caller, ask).factor_needed


@form("/grants/{grant_id}/credential", rerender=credential_page, needs=_factor_missing)
def get_credential(req: PortalRequest, grant_id: str) -> Response:
    """Get a credential and see it once, or every reason why there is none."""
    with PortalRequest(req.viewer, req.sent) as before:
        grant, ask = _asked(before, grant_id)
    # The gate has transactions of its own, and none is held while the backend issues.
    try:
        handed = issuing.issue(req.parts, req.caller, ask, idempotency_key=_key(req))
    except Denied as error:
        return _denied(req, grant, ask, error)
    lease = leases_shown(req.tx, [handed.lease])[0]
    kind = kinds[lease.kind]
    typed = _typed(kind, lease.dataset, lease.slice, lease.action)
    if handed.values is None:
        return render("credential_gone.html", viewer=req.viewer, lease=lease, again=grant_id, typed=typed)
    return render(
        "credential_shown.html",
        viewer=req.viewer,
        lease=lease,
        again=grant_id,
        values=handed.values,
        use=kind.use,
        command_line=typed,
        tool=kind.tool(handed.values),
    )


def _typed(kind: Kind, dataset: str, slice_name: str, action: str) -> str:
    """The same at a terminal, as this kind is had there."""
    said = kind.use.command
    if action == "write":
        said = kind.use.to_write or f"{said} --action write"
    return said.format(dataset=shlex.quote(dataset), slice=shlex.quote(slice_name))


def _foreseen(req: PortalRequest, grant: GrantShown, one: Slice, action: str) -> Choice:
    ask = Ask(grant.dataset, action, one.name)
    decision = explain.explain_access(req.parts, req.tx, req.caller, ask)
    asks_factor = decision.factor_needed is not None
    then = explain.explain_access(req.parts, req.tx, req.caller, ask, proven=True) if asks_factor else decision
    bounds, now = then.bounds, req.viewer.now
    longest = int(min(bounds.max_lifetime, (bounds.not_after - now).total_seconds())) if bounds else 0
    return Choice(one, action, decision, longest)


def _closed(req: PortalRequest, grant: GrantShown, choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """Why each slice is closed; slices that are so for the same reasons are told together."""
    found: dict[tuple[str, ...], list[Choice]] = {}
    for choice in choices:
        found.setdefault(tuple(reason.code for reason in choice.decision.reasons), []).append(choice)
    return [
        {
            "slices": sorted({choice.slice.name for choice in alike}),
            "groups": by_whom(alike[0].decision.reasons),
            "message": _message(req, grant, alike[0].slice.name),
        }
        for alike in found.values()
    ]


def _message(req: PortalRequest, grant: GrantShown, slice_name: str | None, decision_id: str = "") -> dict[str, str]:
    """What to send to who can help: what was wanted, and where they see why it is not to be had."""
    asked = {"dataset": grant.dataset, "person": req.caller.id, "slice": slice_name or ""}
    decided = f" Decision {decision_id}:" if decision_id else ""
    return {
        "says": f"I could not get a credential for {grant.dataset} ({slice_name}, as {grant.role}).{decided}",
        "link": f"{str(req.parts.settings.public_url).rstrip('/')}/why?{urlencode(asked)}",
    }


def _factor_ahead(opened: Sequence[Choice]) -> int | None:
    """How fresh a second factor to ask for at once: it is the only thing missing for every slice that is open."""
    ages = [choice.decision.factor_needed for choice in opened]
    needed = [age for age in ages if age is not None]
    return min(needed) if needed and len(needed) == len(ages) else None


def _lifetimes(opened: Sequence[Choice]) -> list[tuple[str, str]]:
    longest = max((choice.longest for choice in opened), default=0)
    usual = min(issuing.DEFAULT_LIFETIME, longest)
    others = sorted(seconds for seconds in {*LIFETIMES, longest} if seconds <= longest and seconds != usual)
    return [("", f"{_length(usual)} (default)"), *((str(seconds), _length(seconds)) for seconds in others)]


def _length(seconds: int) -> str:
    """A lifetime, never rounded up: nothing is promised that is not given."""
    if seconds < 120:
        return duration(seconds)
    return f"{seconds // 60} min" if seconds % 3600 else duration(seconds)


def _denied(req: PortalRequest, grant: GrantShown, ask: Ask, error: Denied) -> HTMLResponse:
    """Every reason, grouped by who can do something about it."""
    decision = error.decision
    return render(
        "denied.html",
        viewer=req.viewer,
        status=403,
        grant=grant,
        slice=ask.slice,
        decision=decision,
        decision_id=error.decision_id,
        groups=by_whom(decision.reasons),
        message=_message(req, grant, ask.slice, error.decision_id),
        checks=len(decision.passed) + len(decision.reasons),
    )


def _slices(tx: Transaction, grant: Grant) -> list[Slice]:
    """The slices a grant covers."""
    found = slices_of(tx, [grant.dataset_id])[grant.dataset_id]
    return [one for one in found if grant.slice_name in (None, one.name)]


def _asked(req: PortalRequest, grant_id: str) -> tuple[GrantShown, Ask]:
    """The grant, and what a form asks of it.

    Raises:
        Invalid: no slice was chosen, or one that is not served as the kind that was.
    """
    found = holdings.grant(req.tx, req.caller, grant_id)
    grant = grants_shown(req.tx, [found])[0]
    slice_kinds = {one.name: one.kind for one in _slices(req.tx, found)}
    chosen, _, action = (req.field("slice") or grant.slice or "").partition(_ACTION)
    if not chosen:
        raise Invalid("Choose a slice.", field="/slice")
    words.word(chosen, "/slice")
    if action not in ("", "read", "write"):
        raise Invalid("Choose read or write.", field="/slice")
    lifetime = req.field("lifetime")
    if lifetime and not (lifetime.isascii() and lifetime.isdigit() and 0 < len(lifetime) < 7):
        raise Invalid("Enter a number of seconds.", field="/lifetime")
    # Which slices there are is for the gate to say.
    served = serving(slice_kinds[chosen], action or "read") if chosen in slice_kinds else []
    names = [kind.name for kind in served] or list(kinds)
    kind = req.field("kind") or names[0]
    if kind not in names:
        raise Invalid(
            f"The slice {chosen} has no credentials of that kind.",
            field="/kind",
            advice=f"Choose {' or '.join(names)}.",
        )
    public_key = req.field("public_key").strip() if kinds[kind].proof else ""
    if len(public_key) > _LONGEST_KEY:
        raise Invalid("This is too long for a public key.", field="/public_key")
    seconds = int(lifetime) if lifetime else None
    return grant, Ask(grant.dataset, action or "read", chosen, kind, seconds, public_key or None)


def _key(req: PortalRequest) -> str:
    form_id = req.field("form_id")
    if _FORM_ID.fullmatch(form_id) is None:
        raise Invalid("This form is not valid.", advice="Open the page again and send the form from there.")
    return f"form {form_id}"


@page("/already-shown", template="already_shown.html")
def already_shown(req: PortalRequest) -> Context:
    """What was here was shown once; a credential's lease can be looked at, and revoked, all the same."""
    lease = req.asked("lease")
    return {"again": safe_path(req.asked("again") or "/"), "lease": lease if is_id(lease) else ""}
