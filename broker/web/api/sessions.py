"""`/sessions`: your own browsers and command lines, and shutting them out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.identity import sessions
from broker.identity.http import SESSION_COOKIE, drop_cookie
from broker.identity.sessions import SignIn
from broker.web.api.common import PartsNow
from broker.web.api.me import PersonFound

router = APIRouter(prefix="/sessions", tags=["me"])


class Sessions(BaseModel):
    """All of them; there is no second page."""

    items: list[SignIn]
    next_cursor: str | None = None


@router.get("", operation_id="list_sessions")
def list_sessions(found: PersonFound, parts: PartsNow) -> Sessions:
    """Where you are signed in, newest first."""
    with parts.database.transaction() as tx:
        held = sessions.list_sign_ins(tx, found.caller, found.now)
    return Sessions(items=held)


@router.delete("/{session_id}", operation_id="end_session", status_code=204)
def end_session(
    session_id: str,
    request: Request,
    response: Response,
    found: PersonFound,
    parts: PartsNow,
    and_allowed: Annotated[bool, Query(description="End the command lines signed in through it, too.")] = False,
) -> None:
    """End one of your sessions or API tokens at once."""
    end = sessions.end_with_allowed if and_allowed else sessions.end
    with parts.database.transaction() as tx:
        end(tx, found.caller, session_id, clock(tx))
    if session_id == found.caller.holder_id and SESSION_COOKIE in request.cookies:
        drop_cookie(response, SESSION_COOKIE)
