"""What every router of the API shares: the caller, the parts, the window of a list, and prose in bodies."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from starlette.requests import Request

from broker.base.paging import DEFAULT_LIMIT, MOST, Window
from broker.identity.caller import Caller
from broker.identity.http import current_caller, fresh_factor
from broker.runtime.parts import Parts
from broker.web.validation import Strict

# Acts that open something, or close much, want a second factor as fresh as a credential does.
FRESH_SECONDS = 900

CallerNow = Annotated[Caller, Depends(current_caller)]
FreshCaller = Annotated[Caller, Depends(fresh_factor(FRESH_SECONDS))]


def parts_of(request: Request) -> Parts:
    """The parts this replica works with."""
    parts: Parts = request.app.state.parts
    return parts


def window_of(
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Most items on a page.")] = DEFAULT_LIMIT,
) -> Window:
    """The page asked for."""
    return Window(cursor, limit)


PartsNow = Annotated[Parts, Depends(parts_of)]
WindowNow = Annotated[Window, Depends(window_of)]
PersonFilter = Annotated[str | None, Query(max_length=200, description="A person's id, e-mail or whole name.")]
VendorFilter = Annotated[str | None, Query(max_length=200, description="A vendor's id or whole name.")]
Id = Annotated[str, Field(max_length=64, examples=["pe_01k9zq6c5w3m8v4x7r2t1y0b9d"])]
Name = Annotated[str, Field(min_length=1, max_length=120)]
Prose = Annotated[str, Field(min_length=1, max_length=2000)]


VendorId = Annotated[str | None, Field(validation_alias="vendor_id")]


class ReasonBody(Strict):
    """Why something is done; kept, and shown to those it concerns."""

    reason: Prose


class Ended(BaseModel):
    """What an act that ends rights set in motion: these leases are now ending, confirmed one by one."""

    id: str
    status: str
    leases: list[str]
