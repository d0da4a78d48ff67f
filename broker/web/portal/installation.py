"""The installation: where admins open it again, and confirm grants after a restore. Closing it is in `suspending`."""

from __future__ import annotations

from broker.base.errors import NotFound
from broker.registry import vendors
from broker.revocation import closing
from broker.web.api.holding_shapes import grants_shown
from broker.web.portal.forms import Context, PortalRequest, form, page


@page("/installation", template="admin/installation.html")
def installation(req: PortalRequest) -> Context:
    """How the installation stands."""
    held = closing.held_grants(req.tx, req.caller)
    return {
        "stands": closing.installation_state(req.tx),
        "grants": grants_shown(req.tx, held),
        "vendors": vendors.choices(req.tx, ["active"]) if held else [],
    }


@form("/installation/{what}", rerender=installation)
def change_installation(req: PortalRequest, what: str) -> str:
    """Open, or confirm grants."""
    if what not in ("open", "confirm"):
        raise NotFound("There is no such action here.")
    if what == "open":
        closing.reopen(req.tx, req.caller, req.field("reason"), req.now)
    else:
        _confirm(req, req.field("which"))
    return "/installation"


def _confirm(req: PortalRequest, which: str) -> None:
    if not which.startswith("vn_"):
        closing.confirm_grants(req.tx, req.caller, req.now, grants=[which])
        return
    while closing.confirm_grants(req.tx, req.caller, req.now, vendor=which) == closing.BATCH:
        continue
