"""Where going back to something that was shown once leads: a page that says so, and where to get another.

The script of pages shown once puts this address in their place in the browser's history; going back would otherwise
ask to send the form again, or show an error of the browser's.
"""

from __future__ import annotations

from broker.base.ids import is_id
from broker.identity.login import safe_path
from broker.web.portal.forms import Context, PortalRequest, page


@page("/already-shown", template="already_shown.html")
def already_shown(req: PortalRequest) -> Context:
    """What was here was shown once; a credential's lease can be looked at, and revoked, all the same."""
    lease = req.asked("lease")
    return {"again": safe_path(req.asked("again") or "/"), "lease": lease if is_id(lease) else ""}
