"""For admins: the step of a draft that says where data lies that is in no database, and what guests may do there."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.responses import Response

from broker.base.database import Transaction
from broker.kinds.discovery import kinds
from broker.registry import drafts
from broker.web.portal.acting import Setback, go
from broker.web.portal.drafting import path, render_step, step
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()


@router.get("/datasets/new/{draft_id}/place")
def place_page(draft_id: str, viewer: MemberNow) -> Response:
    """Where exactly."""
    return _place_page(Setback(viewer), draft_id, {})


@router.post("/datasets/new/{draft_id}/place")
def choose_place(draft_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Take it."""

    def do(tx: Transaction, viewer: Viewer) -> None:
        actions = [name.removeprefix("may-") for name in sent if name.startswith("may-")]
        drafts.choose_place(tx, viewer.caller, draft_id, sent, actions)

    return step(viewer, sent, do, path(draft_id, "describe"), lambda back: _place_page(back, draft_id, sent))


def _place_page(back: Setback, draft_id: str, sent: Mapping[str, str]) -> Response:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        content = drafts.draft(tx, viewer.caller, draft_id).content
    if done := content.get("done"):
        return go(f"/datasets/{done}/slices")
    if "kind" not in content:
        return go(path(draft_id, "table"))
    kind = kinds[content["kind"]]
    chosen = content.get("actions", ["read"] if "read" in kind.actions else [])
    return render_step(
        "place",
        back,
        draft=draft_id,
        content=content,
        fields=kind.binding_fields or (),
        filled=sent or content.get("binding", {}),
        actions=sorted(kind.actions),
        chosen=[name.removeprefix("may-") for name in sent if name.startswith("may-")] if sent else chosen,
    )
