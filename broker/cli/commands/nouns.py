"""`list` and `show` of every noun: the same shape each time, so described as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from broker.cli import completing, helping
from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.output import Column
from broker.cli.words import safe

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
OnlyDataset = Annotated[str | None, typer.Option(help="Only on this dataset.", autocompletion=completing.DATASETS)]
OnlyPerson = Annotated[
    str | None, typer.Option(help="Only this person's: id, e-mail or whole name.", autocompletion=completing.PEOPLE)
]
OnlyVendor = Annotated[
    str | None, typer.Option(help="Only this vendor's: id or whole name.", autocompletion=completing.VENDORS)
]
LeaseState = Annotated[
    str | None,
    typer.Option(
        help="live, pending, active, revoking, revoked, expired, revoke_failed.",
        autocompletion=completing.words("live", "pending", "active", "revoking", "revoked", "expired", "revoke_failed"),
    ),
]
PersonStatus = Annotated[
    str | None,
    typer.Option(
        help="pending, active, suspended, refused.",
        autocompletion=completing.words("pending", "active", "suspended", "refused"),
    ),
]
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


@dataclass(frozen=True, slots=True)
class Noun:
    """A thing of the API that can be listed and shown."""

    name: str
    path: str
    listed: Sequence[Column]
    shown: Sequence[Column]
    none: str

    key: str = "id"

    @property
    def argument(self) -> Any:
        """The annotation of an argument that names one of them."""
        complete = completing.names(self.path, self.key)
        return Annotated[str, typer.Argument(metavar="ID", help="Its id.", autocompletion=complete)]


def mount_show(app: typer.Typer, noun: Noun, *, of: str = "") -> None:
    """Add `show`; `of` is the group's name if it is not the noun's."""

    def show(cli: Cli, id_: Id) -> None:
        cli.out.facts(noun.shown, cli.api.get(f"{noun.path}/{segment(id_)}"))

    show.__annotations__["id_"] = noun.argument
    show.__doc__ = f"Show one {noun.name}."
    verb(app, "show", of=of or noun.name)(show)


def mount_list(app: typer.Typer, noun: Noun) -> None:
    """Add `list` without filters."""

    def list_(cli: Cli, limit: Limit = 100) -> None:
        print_list(cli, noun, limit)

    list_.__doc__ = f"List every {noun.name} you can see."
    verb(app, "list", of=noun.name)(list_)


def print_list(cli: Cli, noun: Noun, limit: int, **query: str | None) -> None:
    """List a noun, filtered; that a filter left nothing is not that there is nothing."""
    filters = " ".join(f"--{name} {value}" for name, value in query.items() if value is not None)
    none = f"Nothing matches {safe(filters)}." if filters else noun.none
    cli.out.items(noun.listed, cli.api.pages(noun.path, limit, **query), none=none)


def group(app: typer.Typer, noun: str, help_: str) -> typer.Typer:
    """A group of commands about one noun."""
    made = typer.Typer(cls=helping.Commands, no_args_is_help=True, help=help_, pretty_exceptions_show_locals=False)
    app.add_typer(made, name=noun, rich_help_panel="Nouns")
    return made
