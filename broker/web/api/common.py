"""What every router of the API shares: strict bodies, known query parameters, the caller, the window of a list."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import Depends, Query
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import Invalid
from broker.base.paging import DEFAULT_LIMIT, MOST, Window
from broker.identity.caller import Caller
from broker.identity.http import current_caller, fresh_factor
from broker.runtime.parts import Parts
from broker.web import problems

_MOST_ERRORS = 20


class Strict(BaseModel):
    """A request body: no unknown field, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def example(**fields: Any) -> ConfigDict:
    """The `model_config` of a body whose description shows it filled like this."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Shown(BaseModel):
    """A response body, filled from a record or a dataclass."""

    model_config = ConfigDict(from_attributes=True, frozen=True, validate_by_name=True, validate_by_alias=True)

    @classmethod
    def of(cls, found: object, **beside: Any) -> Self:
        """Filled from a record, and `beside` it with what the record does not hold."""
        fields = {name: str(field.validation_alias or name) for name, field in cls.model_fields.items()}
        held = {name: getattr(found, alias) for name, alias in fields.items() if name not in beside}
        return cls.model_validate(held | beside)


def only_known_query(request: Request) -> None:
    """A dependency: refuse query parameters that the route does not know, or that come twice.

    A mistyped filter must not silently widen a list.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = _query_names(route.dependant)
    keys = [key for key, _ in request.query_params.multi_items()]
    for key in keys:
        if key not in known:
            raise Invalid(
                "A query parameter is not known at this address.",
                field="/query",
                advice=f"Known here: {', '.join(sorted(known)) or 'none'}.",
            )
    if len(set(keys)) != len(keys):
        raise Invalid("A query parameter was given twice.", field="/query", advice="Send each parameter once.")


def render_invalid(request: Request, error: Exception) -> Response:
    """The problem document for input that does not fit its model; never repeats what was sent."""
    assert isinstance(error, RequestValidationError)  # registered for nothing else
    found = [{"pointer": _pointer(item["loc"]), "detail": _sentence(item)} for item in error.errors()]
    listed = found[:_MOST_ERRORS]
    detail = "; ".join(f"{item['pointer']}: {item['detail']}" for item in listed[:3])
    return problems.problem(request, "invalid", 422, detail, errors=listed)


def _query_names(dependant: Dependant) -> set[str]:
    names = {str(field.alias) for field in dependant.query_params}
    for inner in dependant.dependencies:
        names |= _query_names(inner)
    return names


def _pointer(location: tuple[Any, ...]) -> str:
    parts = [str(part) for part in location]
    if parts and parts[0] == "body":
        parts = parts[1:]
    escaped = [part.replace("~", "~0").replace("/", "~1")[:80] for part in parts]
    return "/" + "/".join(escaped)


def _sentence(item: dict[str, Any]) -> str:
    if item["type"] == "extra_forbidden":
        return "There is no such field."
    if item["type"] == "json_invalid":
        return "The body is not JSON."
    return str(item["msg"]).removeprefix("Value error, ")[:300]


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
