"""Search: something by its id, or by the beginning of its name."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.auditing.searching import Hit, search
from broker.base.ids import is_id
from broker.kinds.names import lease_of
from broker.registry.naming import bare
from broker.web.portal.acting import go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow

router = APIRouter()


@router.get("/search")
def search_page(viewer: MemberNow, q: str = "") -> Response:
    """What was found; an id leads straight to what it names."""
    with viewer.parts.database.transaction() as tx:
        hits = search(tx, viewer.caller, q)
    if len(hits) == 1 and is_id(lease_of(bare(q.strip().lower()))):
        return go(_path(hits[0]))
    return _found(viewer, q, hits)


def _found(viewer: MemberNow, q: str, hits: list[Hit]) -> HTMLResponse:
    shown = [(hit, _path(hit)) for hit in hits]
    return render("search.html", viewer=viewer, asked=q[:100], hits=shown)


def _path(hit: Hit) -> str:
    return f"/{hit.place}/{hit.id}"
