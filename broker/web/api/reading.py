"""Routes of the API that show a noun: its list, the list as a file, and one of them. Made of the noun's declaration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from broker.base.database import Transaction
from broker.base.paging import Page, Window
from broker.identity.caller import Caller
from broker.identity.nouns import Noun
from broker.runtime.parts import Parts
from broker.web import exporting
from broker.web.api.common import CallerNow, PartsNow, WindowNow
from broker.web.api.verbs import At, verb

Rows = Sequence[Any]
_FORM = Annotated[exporting.Form, Query(alias="format", description="A table, or one JSON document a line.")]


@dataclass(frozen=True, slots=True)
class File:
    """How a list is written out: what it says, its columns, and their values as JSON has them."""

    about: str
    columns: tuple[str, ...]
    rows: Callable[[At, Rows], Sequence[Mapping[str, Any]]]


def add_list(
    router: APIRouter,
    noun: Noun[Any],
    shown: Any,
    about: str,
    *,
    render: Callable[[At, Rows], Rows] = lambda _, rows: rows,
    file: File | None = None,
) -> None:
    """The list of a noun, with its filters; as a file, too, if one is described. `render` adds what no record holds."""

    def list_(caller: Caller, parts: Parts, window: Window, **narrowed: Any) -> Page[Any]:
        with parts.database.transaction() as tx:
            found = noun.page(tx, caller, window, **narrowed)
            return Page(items=list(render(At(parts, caller, tx), found.items)), next_cursor=found.next_cursor)

    display = noun.display.described(noun.name) if noun.display else None
    described = {"response_model": Page[shown], "openapi_extra": display}
    _add(router, "", f"list_{noun.plural}", about, list_, _parameters(noun, window=WindowNow), **described)
    if file is not None:
        _add_file(router, noun, file)


def _add_file(router: APIRouter, noun: Noun[Any], file: File) -> None:
    def export(caller: Caller, parts: Parts, form: exporting.Form, **narrowed: Any) -> StreamingResponse:
        def read(tx: Transaction, window: Window) -> Page[exporting.Row]:
            found = noun.page(tx, caller, window, **narrowed)
            return Page(items=list(file.rows(At(parts, caller, tx), found.items)), next_cursor=found.next_cursor)

        return exporting.export_list(parts, caller, noun.plural, file.columns, read, form)

    form = Parameter("form", Parameter.KEYWORD_ONLY, default="csv", annotation=_FORM)
    _add(
        router,
        "/export",
        f"export_{noun.plural}",
        file.about,
        export,
        [*_parameters(noun), form],
        response_class=StreamingResponse,
        responses=exporting.responses("csv", "jsonl"),
    )


def add_show(
    router: APIRouter, noun: Noun[Any], shown: Any, about: str, *, render: Callable[[At, Any], Any] = lambda _, row: row
) -> None:
    """One of a noun, by its id. `render` adds what no record holds."""

    def show(at: At, **named: str) -> Any:
        return render(at, noun.one(at.tx, at.caller, named[f"{noun.name}_id"]))

    show.__name__, show.__doc__ = f"show_{noun.name}", about
    id_ = Parameter(f"{noun.name}_id", Parameter.KEYWORD_ONLY, annotation=str)
    show.__signature__ = inspect.Signature([Parameter("at", Parameter.POSITIONAL_ONLY), id_])  # type: ignore[attr-defined]
    verb(router, "GET", f"/{{{noun.name}_id}}", shown)(show)


def _parameters(noun: Noun[Any], **more: Any) -> list[Parameter]:
    annotations = {"caller": CallerNow, "parts": PartsNow} | more
    own = [Parameter(name, Parameter.KEYWORD_ONLY, annotation=type_) for name, type_ in annotations.items()]
    return own + [
        Parameter(
            filter_.name,
            Parameter.KEYWORD_ONLY,
            default=filter_.default,
            annotation=Annotated[
                filter_.type if filter_.default else filter_.type | None, Query(description=filter_.about)
            ],
        )
        for filter_ in noun.filters
    ]


def _add(
    router: APIRouter,
    path: str,
    name: str,
    about: str,
    endpoint: Callable[..., Any],
    parameters: list[Parameter],
    **described: Any,
) -> None:
    endpoint.__name__, endpoint.__doc__ = name, about
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    router.add_api_route(path, endpoint, methods=["GET"], operation_id=name, **described)
