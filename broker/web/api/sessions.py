"""`/sessions`: your own browsers and command lines, and shutting them out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import now as clock
from broker.identity import sessions
from broker.identity.http import SESSION_COOKIE, drop_cookie
from broker.web.api.common import PartsNow
from broker.web.api.me import PersonFound
from broker.web.validation import Shown

router = APIRouter(prefix="/sessions", tags=["me"])


class SessionShown(Shown):
    """A live session or API token; `sort` is `browser` or `command line`, `current` is the one that asks.

    `allowed_by`: the session through which a command line was signed in.
    """

    id: str
    sort: str
    client: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    factor_at: datetime | None
    current: bool
    allowed_by: str | None


class Sessions(BaseModel):
    """All of them; there is no second page."""

    items: list[SessionShown]
    next_cursor: str | None = None


@router.get("", operation_id="list_sessions")
def list_sessions(found: PersonFound, parts: PartsNow) -> Sessions:
    """Where you are signed in, newest first."""
    with parts.database.transaction() as tx:
        held = sessions.list_sign_ins(tx, found.caller, found.now)
    return Sessions(items=[SessionShown.model_validate(item) for item in held])


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
