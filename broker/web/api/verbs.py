"""Routes of the API that act: one caller, one transaction, one answer; the same way for each.

What an act does is a function of its room. What is here is the frame around it: whether it asks for a fresh second
factor, how an act that waits for a second person is answered, and whether a repeat gets the first answer: then key, act
and answer are one transaction. A repeat that comes meanwhile waits for it, and an act that failed leaves no key behind.
Answers that are kept never hold a secret; leases keep their own promise (`broker.leases.issuing`).
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
from typing import Annotated, Any

from fastapi import Header
from fastapi.routing import APIRoute, APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.identity.caller import Caller
from broker.models import Proposal
from broker.runtime import stored_responses
from broker.runtime.parts import Parts
from broker.web.api.common import CallerNow, FreshCaller, PartsNow, Shown

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


@dataclass(frozen=True, slots=True)
class Once:
    """One request and its key; `key` None means that a repeat is a new request."""

    key_hash: bytes | None
    request_hash: bytes


def checked_key(key: str | None) -> str | None:
    """The key, if it is one.

    Raises:
        Invalid: it is empty, too long, or holds more than printable ASCII.
    """
    if key is not None and _KEY.fullmatch(key) is None:
        raise Invalid("An idempotency key is 1 to 200 printable ASCII characters.", field="/header/Idempotency-Key")
    return key


def once(request: Request, caller: Caller, body: BaseModel, key: str | None) -> Once:
    """Name a request, so that its repeat is recognised; a key counts for one caller only.

    Raises:
        Invalid: the key is none, or the body cannot be written down.
    """
    checked_key(key)
    try:
        said = f"{request.method}\n{request.url.path}\n{body.model_dump_json()}"
    except ValueError as error:
        raise Invalid("The body contains text that JSON cannot represent, such as a lone surrogate.") from error
    key_hash = hashlib.sha256(f"{caller.subject}\n{key}".encode()).digest() if key else None
    return Once(key_hash, hashlib.sha256(said.encode()).digest())


def answer(
    parts: Parts, this: Once, act: Callable[[Transaction, datetime], BaseModel], *, status: int = 201
) -> JSONResponse:
    """Do it and answer, or repeat the answer it got before; what waits for a second person is answered with 202.

    Raises:
        Conflict: the key was used for another request.
    """
    with parts.database.transaction() as tx:
        now = clock(tx)
        kept = stored_responses.claim(tx, this.key_hash, this.request_hash, now) if this.key_hash else None
        if kept is not None:
            return JSONResponse(kept.body, kept.status, headers={"Idempotent-Replayed": "true"})
        shown = act(tx, now)
        status = PROPOSED if isinstance(shown, Proposed) else status
        body: dict[str, Any] = shown.model_dump(mode="json")
        if this.key_hash is not None:
            stored_responses.keep(tx, this.key_hash, status, body)
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
                this = once(request, caller, given["body"], given.pop("key"))
                return answer(
                    parts, this, lambda tx, _: _shown(shown, act(At(parts, caller, tx), **given)), status=status
                )
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
