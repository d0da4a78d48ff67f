"""For admins: the step of a draft that says where data lies that is in no database, and what guests may do there."""

from __future__ import annotations

from starlette.responses import Response

from broker.kinds.discovery import kinds
from broker.registry import drafts
from broker.web.portal.draft_steps import STEP, path
from broker.web.portal.form_submission import go
from broker.web.portal.forms import Context, PortalRequest, form, page


@page(f"{STEP}/place", template="describe/place.html")
def place_page(req: PortalRequest, draft_id: str) -> Context | Response:
    """Where exactly."""
    content = drafts.draft(req.tx, req.caller, draft_id).content
    if done := content.get("done"):
        return go(f"/datasets/{done}/slices")
    if "kind" not in content:
        return go(path(draft_id, "table"))
    kind = kinds[content["kind"]]
    chosen = content.get("actions", ["read"] if "read" in kind.actions else [])
    return {
        "draft": draft_id,
        "content": content,
        "fields": kind.binding_fields or (),
        "filled": req.sent or content.get("binding", {}),
        "actions": sorted(kind.actions),
        "chosen": req.ticked("may-") if req.sent else chosen,
    }


@form(f"{STEP}/place", rerender=place_page, needs=None)
def choose_place(req: PortalRequest, draft_id: str) -> str:
    """Take it."""
    drafts.choose_place(req.tx, req.caller, draft_id, req.sent, req.ticked("may-"))
    return path(draft_id, "describe")
