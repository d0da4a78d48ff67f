"""`list`, `show` and `export` of every noun, made from data (`guestkey.cli.nouns`); options that commands share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from guestkey.cli import completing, helping
from guestkey.cli.api import segment
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.export_file import Output, save
from guestkey.cli.nouns import ACTS, NOUNS, Act, ClientNoun
from guestkey.cli.words import safe

Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
Reason = Annotated[
    str, typer.Option("--reason", "-r", help="The reason; it is recorded and shown to the people affected.")
]
Dataset = Annotated[
    str, typer.Argument(help="The dataset's short name.", autocompletion=completing.DATASETS, metavar="DATASET")
]
OptionalDataset = Annotated[
    str | None,
    typer.Argument(help="The dataset's short name.", autocompletion=completing.DATASETS, metavar="DATASET"),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=completing.REQUESTS)]
GrantId = Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=completing.GRANTS)]
Slice = Annotated[str | None, typer.Option("--slice", help="The slice.", autocompletion=completing.SLICES)]
Lifetime = Annotated[str | None, typer.Option("--for", help="How long, such as 15m; the rule may shorten it.")]
Kind = Annotated[str, typer.Option("--kind", help="Kind of credential.", autocompletion=completing.KINDS)]
MaybeKind = Annotated[
    str | None,
    typer.Option("--kind", help="Kind of credential; default: the dataset's own.", autocompletion=completing.KINDS),
]
AnyKind = Annotated[str | None, typer.Option("--kind", help="Kind of credential.", autocompletion=completing.KINDS)]
Action = Annotated[str, typer.Option("--action", help="read or write.", autocompletion=completing.ACTIONS)]
LeaseId = Annotated[
    str,
    typer.Argument(metavar="ID", help="Its id, or its name at the backend (gk_…).", autocompletion=completing.LEASES),
]


# Arguments and options that complete with what the installation has, by the API's name of what they hold.
_COMPLETIONS: Mapping[str, Any] = {
    "dataset": completing.DATASETS,
    "person": completing.PEOPLE,
    "vendor": completing.VENDORS,
}
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_FORMS = {"csv": "a table", "jsonl": "a JSON document a line", "json": "one document", "proofs": "for `audit verify`"}


def mount(app: typer.Typer, groups: Groups, *, special: frozenset[str]) -> None:
    """Add `list`, `show` and `export` of every noun; `show` of those that are `special` is written by hand."""
    for noun in NOUNS.values():
        if noun.group not in groups:
            groups[noun.group] = group(app, noun.group, noun.about)
        commands = groups[noun.group]
        _mount_list(commands, noun)
        if noun.details and noun.name not in special:
            _mount_show(commands, noun)
        if noun.export_filters is not None:
            _mount_export(commands, noun, noun.export_filters)
    for act in ACTS:
        _mount_act(groups[act.group], act)


def argument_of(noun: ClientNoun) -> Any:
    """The annotation of an argument that names one of them."""
    complete = completing.names(noun.path, noun.key)
    return Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=complete)]


def _mount_show(app: typer.Typer, noun: ClientNoun) -> None:
    def show(cli: Cli, id_: Id) -> None:
        cli.out.facts(noun.shown, cli.api.get(f"{noun.path}/{segment(id_)}"))

    show.__annotations__["id_"] = LeaseId if noun.name == "lease" else argument_of(noun)
    show.__doc__ = f"Show one {noun.name}."
    verb(app, "show", of=noun.group)(show)


def _mount_list(app: typer.Typer, noun: ClientNoun) -> None:
    defaults = {filter_["name"]: filter_.get("default") for filter_ in noun.filters}

    def list_(cli: Cli, limit: int, **given: Any) -> None:
        query = _query(given)
        asked = {name: value for name, value in query.items() if value not in (None, defaults.get(name))}
        filters = " ".join(f"--{name} {value}" for name, value in asked.items())
        # That a filter left nothing is not that there is nothing.
        none = f"Nothing matches {safe(filters)}." if filters else noun.none
        cli.out.items(noun.listed, cli.api.pages(noun.path, limit, **query), none=none)

    list_.__doc__ = noun.list_about
    _sign(list_, [*_options(noun.filters), _option("limit", Limit, 100)])
    verb(app, noun.list_as, of=noun.group)(list_)


def _mount_export(app: typer.Typer, noun: ClientNoun, filters: Sequence[Mapping[str, Any]]) -> None:
    forms = StrEnum("forms", {form.upper(): form for form in noun.formats})  # type: ignore[misc]

    def export(cli: Cli, output: Path | None, form: StrEnum, **given: Any) -> None:
        save(cli, f"{noun.path}/export", output, format=form.value, **_query(given))

    export.__doc__ = noun.export_about
    about = "; ".join(f"`{form}`: {_FORMS.get(form, form)}" for form in noun.formats)
    chosen = _option("form", Annotated[forms, typer.Option("--format", help=f"{about}.")], next(iter(forms)))
    _sign(export, [_option("output", Output), chosen, *_options(filters)])
    verb(app, "export", of=noun.group)(export)


def _mount_act(app: typer.Typer, act: Act) -> None:
    def do(cli: Cli, **given: str | None) -> None:
        typed = {name: str(given.pop(name)) for name in act.arguments}
        path = act.path.format_map({name: segment(value) for name, value in typed.items()})
        answer = cli.api.change(act.method, path, given or None)
        # What others wrote is made harmless; somebody without a name is called as they were typed.
        blank = safe(next(iter(typed.values()), ""))
        cli.out.done(act.said.format_map({name: safe(value) or blank for name, value in answer.items()}), answer)

    do.__doc__ = act.about
    noun = next(noun for noun in NOUNS.values() if noun.group == act.group)
    arguments = [_option(name, argument_of(noun), inspect.Parameter.empty) for name in act.arguments]
    _sign(do, [*arguments, *(_body_option(option) for option in act.options)])
    verb(app, act.name, of=act.group)(do)


def _body_option(option: Mapping[str, Any]) -> inspect.Parameter:
    if option["name"] == "reason":
        return _option("reason", Reason, inspect.Parameter.empty)
    default = inspect.Parameter.empty if option["required"] else None
    known = _COMPLETIONS.get(option["name"])
    return _option(
        option["name"], Annotated[str | None, typer.Option(help=option["about"], autocompletion=known)], default
    )


def _options(filters: Sequence[Mapping[str, Any]]) -> list[inspect.Parameter]:
    return [_option(str(filter_["name"]), _annotation(filter_), filter_.get("default")) for filter_ in filters]


def _annotation(filter_: Mapping[str, Any]) -> Any:
    about = filter_["about"]
    if filter_["type"] == "date-time":
        return Annotated[datetime | None, typer.Option(help=f"{about} UTC.", formats=_MOMENTS)]
    known = completing.words(*filter_["words"]) if filter_["words"] else _COMPLETIONS.get(filter_["name"])
    return Annotated[str | None, typer.Option(help=about, autocompletion=known)]


def _option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _sign(body: Any, options: Sequence[inspect.Parameter]) -> None:
    """Give a command made from data the parameters that Typer reads."""
    cli = inspect.Parameter("cli", inspect.Parameter.POSITIONAL_ONLY, annotation=Cli)
    body.__signature__ = inspect.Signature([cli, *options])


def _query(given: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        name: value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value
        for name, value in given.items()
    }


def group(app: typer.Typer, noun: str, help_: str) -> typer.Typer:
    """A group of commands about one noun."""
    made = typer.Typer(cls=helping.Commands, no_args_is_help=True, help=help_, pretty_exceptions_show_locals=False)
    app.add_typer(made, name=noun, rich_help_panel="Nouns")
    return made
