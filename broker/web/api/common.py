"""What routes of the API are made of: strict bodies, known query parameters, the caller, a list's window, and acts.

What an act does is a function of its room. `verb` is the frame around it: one caller, one transaction, one answer;
whether it asks for a fresh second factor, how an act that waits for a second person is answered, and whether a repeat
gets the first answer. Then key, act and answer are one transaction: a repeat that comes meanwhile waits for it, and an
act that failed leaves no key behind. Answers that are kept never hold a secret; leases keep their own promise
(`broker.leases.issuing`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from inspect import Parameter
from typing import Annotated, Any, Self

from fastapi import Depends, Header, Query
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker.base.database import Transaction, clock
from broker.base.errors import Invalid
from broker.base.paging import DEFAULT_LIMIT, MOST, Window
from broker.identity.caller import Caller
from broker.identity.http import current_caller, fresh_factor
from broker.models import Proposal
from broker.runtime import stored_responses
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


Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Exact(Request):
    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class ExactNumbers(APIRoute):
    """A route that reads numbers with a point or an exponent as `Decimal`."""

    def get_route_handler(self) -> Handler:
        """See FastAPI, "Custom Request and APIRoute class"."""
        handle = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handle(_Exact(request.scope, request.receive))

        return exactly


PROPOSED = 202


class ProposalMade(Shown):
    """The act waits for a second admin."""

    id: str
    state: str
    lapses_at: datetime


class Proposed(ProposalMade):
    """An act that a second person must agree to: the dataset's owner or another admin."""

    act: str


def lifetime_of(parts: Parts) -> timedelta:
    """How long a proposal waits here."""
    return timedelta(seconds=parts.settings.proposal_lifetime)


_KEY = re.compile(r"[!-~]{1,200}")
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", description="Any text you choose; a repeat with the same key gets the first answer."
    ),
]


def checked_key(key: str | None) -> str | None:
    """The key, if it is one.

    Raises:
        Invalid: it is empty, too long, or holds more than printable ASCII.
    """
    if key is not None and _KEY.fullmatch(key) is None:
        raise Invalid("An idempotency key is 1 to 200 printable ASCII characters.", field="/header/Idempotency-Key")
    return key


def hashes_of(request: Request, caller: Caller, body: BaseModel, key: str | None) -> tuple[bytes | None, bytes]:
    """The hashes of key and request, so that a repeat is recognised; a key counts for one caller only.

    Raises:
        Invalid: the key is none, or the body cannot be written down.
    """
    checked_key(key)
    try:
        said = f"{request.method}\n{request.url.path}\n{body.model_dump_json()}"
    except ValueError as error:
        raise Invalid("The body contains text that JSON cannot represent, such as a lone surrogate.") from error
    key_hash = hashlib.sha256(f"{caller.subject}\n{key}".encode()).digest() if key else None
    return key_hash, hashlib.sha256(said.encode()).digest()


def answer_once(
    parts: Parts, hashes: tuple[bytes | None, bytes], act: Callable[[Transaction], BaseModel], status: int
) -> JSONResponse:
    """Do it and answer, or repeat the answer it got before; what waits for a second person is answered with 202.

    Raises:
        Conflict: the key was used for another request.
    """
    with parts.database.transaction() as tx:
        key_hash, request_hash = hashes
        kept = stored_responses.claim(tx, key_hash, request_hash, clock(tx)) if key_hash else None
        if kept is not None:
            return JSONResponse(kept.body, kept.status, headers={"Idempotent-Replayed": "true"})
        shown = act(tx)
        status = PROPOSED if isinstance(shown, Proposed) else status
        body: dict[str, Any] = shown.model_dump(mode="json")
        if key_hash is not None:
            stored_responses.keep(tx, key_hash, status, body)
    return JSONResponse(body, status)


Act = Callable[..., Any]
_WAITS = "It waits for a second admin or, if it concerns datasets, for their owner."


@dataclass(frozen=True)
class At:
    """One request: who asks, with which parts, in which transaction."""

    parts: Parts
    caller: Caller
    tx: Transaction

    @property
    def lifetime(self) -> timedelta:
        """How long what is proposed waits for a second person."""
        return lifetime_of(self.parts)

    @cached_property
    def now(self) -> datetime:
        """PostgreSQL's time when it was first asked for here."""
        return clock(self.tx)


def verb(
    router: APIRouter,
    method: str,
    path: str,
    shown: Any = None,
    *,
    status: int = 200,
    fresh: bool = False,
    repeatable: bool = False,
    proposes: type[BaseModel] | None = None,
    no_store: bool = False,
    listed: Mapping[str, Any] | None = None,
    command: tuple[str, str] | None = None,
) -> Callable[[Act], Act]:
    """Make a route of a function that takes an `At` and, by name, what the request brings. Its name is the operation's.

    Args:
        shown: what its result is answered as; None answers nothing.
        fresh: it asks for a second factor as fresh as a credential does.
        repeatable: a repeat with the same `Idempotency-Key` gets the first answer.
        proposes: what its result is answered as, with 202, if it is a proposal.
        no_store: the answer holds a secret, which no cache keeps.
        listed: of a list, how clients show it (`Display.described`).
        command: the words of the command line that do it, and what is then said; `{name}` is a field of the answer.
            Its arguments are the address's, its options those of the body: texts only.
    """

    def register(act: Act) -> Act:
        signature = inspect.signature(act, eval_str=True)
        own = [Parameter("caller", Parameter.KEYWORD_ONLY, annotation=FreshCaller if fresh else CallerNow)]
        own += [
            Parameter("parts", Parameter.KEYWORD_ONLY, annotation=PartsNow),
            Parameter("request", Parameter.KEYWORD_ONLY, annotation=Request),
            Parameter("response", Parameter.KEYWORD_ONLY, annotation=Response),
        ]
        if repeatable:
            own.append(Parameter("key", Parameter.KEYWORD_ONLY, default=None, annotation=KeyHeader))
        brought = [given.replace(kind=Parameter.KEYWORD_ONLY) for given in list(signature.parameters.values())[1:]]

        def endpoint(caller: Caller, parts: Parts, request: Request, response: Response, **given: Any) -> Any:
            if no_store:
                response.headers["Cache-Control"] = "no-store"
            if repeatable:
                if new := getattr(given["body"], "new", None):
                    # What is wrong with a field is said of that field, before the body is compared with earlier ones.
                    new()
                hashes = hashes_of(request, caller, given["body"], given.pop("key"))
                return answer_once(parts, hashes, lambda tx: _shown(shown, act(At(parts, caller, tx), **given)), status)
            with parts.database.transaction() as tx:
                done = act(At(parts, caller, tx), **given)
            if isinstance(done, Proposal) and proposes:
                return JSONResponse(
                    proposes.model_validate(done, from_attributes=True).model_dump(mode="json"), PROPOSED
                )
            return done

        endpoint.__name__, endpoint.__doc__ = act.__name__, act.__doc__
        endpoint.__signature__ = signature.replace(parameters=own + brought)  # type: ignore[attr-defined]
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            operation_id=act.__name__,
            status_code=status,
            response_model=shown,
            openapi_extra=dict(listed or {}) | ({"x-command": command} if command else {}) or None,
            responses={PROPOSED: {"model": proposes, "description": _WAITS}} if proposes else None,
        )
        return act

    return register


def _shown(shown: type[BaseModel], done: Any) -> BaseModel:
    return (Proposed if isinstance(done, Proposal) else shown).model_validate(done, from_attributes=True)
