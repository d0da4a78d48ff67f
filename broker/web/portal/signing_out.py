"""Ending a session in the portal: what it has allowed is named, and ended with it if the person says so."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from broker.base.database import now as clock
from broker.identity import sessions
from broker.web.portal.pages import render
from broker.web.portal.viewer import Viewer

# What the buttons of the page send: whether the command lines end, too.
CHOICE = "command_lines"
END, KEEP = "end", "keep"


def ask_about_allowed(viewer: Viewer, session_id: str, action: str, sent: Mapping[str, str]) -> Response | None:
    """The page that asks about the command lines a session has signed in; None if there are none, or it was answered.

    Args:
        action: where its form goes: the same address that asked.
    """
    if sent.get(CHOICE) in (END, KEEP):
        return None
    with viewer.parts.database.transaction() as tx:
        allowed = sessions.allowed_by(tx, viewer.caller, session_id, clock(tx))
    if not allowed:
        return None
    here = session_id == viewer.caller.holder_id
    return render("sign_in/sign_out.html", viewer=viewer, allowed=allowed, action=action, here=here, choice=CHOICE)


def end_session(viewer: Viewer, session_id: str, sent: Mapping[str, str]) -> None:
    """End a session or command line, and what it has allowed if the form says so.

    Raises:
        NotFound: it is not the person's, or has ended.
    """
    end = sessions.end_with_allowed if sent.get(CHOICE) == END else sessions.end
    with viewer.parts.database.transaction() as tx:
        end(tx, viewer.caller, session_id, clock(tx))
