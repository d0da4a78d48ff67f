"""Where going back to something that was shown once leads: a page that says so, and where to get another.

The script of pages shown once puts this address in their place in the browser's history; going back would otherwise
ask to send the form again, or show an error of the browser's.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from broker.base.ids import is_id
from broker.identity.login import safe_path
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow

router = APIRouter()


@router.get("/already-shown")
def already_shown(viewer: MemberNow, again: str = "/", lease: str = "") -> HTMLResponse:
    """What was here was shown once; a credential's lease can be looked at, and revoked, all the same."""
    return render("already_shown.html", viewer=viewer, again=safe_path(again), lease=lease if is_id(lease) else "")
