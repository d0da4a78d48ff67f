"""Search: something by its id, or by the beginning of its name."""

from __future__ import annotations

from starlette.responses import Response

from broker.auditing.searching import Hit, search
from broker.base.ids import is_id
from broker.kinds.names import lease_of
from broker.registry.naming import bare
from broker.web.portal.form_submission import go
from broker.web.portal.forms import Context, PortalRequest, page


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
