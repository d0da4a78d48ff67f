"""Input at the door: strict bodies, known query parameters only, and what is said about the rest."""

from __future__ import annotations

from typing import Any, Self

from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import Invalid
from broker.web import problems

_MOST_ERRORS = 20


class Strict(BaseModel):
    """A request body: no unknown field, no conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
