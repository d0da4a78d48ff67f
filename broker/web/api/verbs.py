"""Routes of the API that act: one caller, one transaction, one answer; the same way for each.

What an act does is a function of its room. What is here is the frame around it: whether it asks for a fresh second
factor, whether a repeat gets the first answer, and how an act that waits for a second person is answered.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from inspect import Parameter
from typing import Any

from fastapi.routing import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.identity.caller import Caller
from broker.models import Proposal
from broker.runtime.parts import Parts
from broker.web.api.common import CallerNow, FreshCaller, PartsNow
from broker.web.idempotency import KeyHeader, answer, once
from broker.web.proposed import PROPOSED, Proposed, lifetime_of

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
