"""`dataset new`, `dataset preview`, `slice`, `connection`: making datasets of what connected databases hold.

Rows are read here, on the caller's own machine, with a lease of the caller's own: the broker is not in their way.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from broker.base import filter_text
from guestkey.cli import children, completing, programs, variables
from guestkey.cli.api import Json, segment
from guestkey.cli.clients import client_of
from guestkey.cli.command import Cli, verb
from guestkey.cli.commands.changing import waits
from guestkey.cli.commands.nouns import Dataset, Limit, Reason, Slice, group
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import columns
from guestkey.cli.temporary_credential import borrowed
from guestkey.cli.wanted import Wanted, settled

CONNECTION = completing.names("/connections", "name", "to")
Connection = Annotated[
    str, typer.Argument(help="The connected database's name.", metavar="CONNECTION", autocompletion=CONNECTION)
]
Name = Annotated[str, typer.Argument(help="The slice's name.", metavar="SLICE")]
_CONNECTIONS = columns(
    "connection=name!, kind!, leads to=to, a slice is=slice_is, answers=healthy, "
    "not responding since=silent_since@, because=silent_why, catalogue=state, tables, read=read_at@, detail"
)
_TABLES = columns(
    "schema=schema_name, table=name, rows (about)=rows, columns=counted, looks like personal data=personal, notes"
)
_COLUMNS = columns("column=name, type, looks like=personal, because=why")
_PREVIEW_SECONDS = 60


def mount(app: typer.Typer, datasets: typer.Typer) -> None:
    """Add these commands; `datasets` is the group `dataset`."""
    verb(datasets, "new", of="dataset")(new_dataset)
    verb(datasets, "preview", of="dataset")(preview)
    slices = group(app, "slice", "Parts of a dataset that guests can get; for admins.")
    verb(slices, "add", of="slice")(add_slice)
    verb(slices, "retry", of="slice")(retry_slice)
    verb(slices, "repair", of="slice")(repair_slice)
    verb(slices, "confirm", of="slice")(confirm_slice)
    verb(slices, "fast", of="slice")(set_fast)
    verb(slices, "retire", of="slice")(retire_slice)
    connections = group(app, "connection", "Connections, and the names of tables and columns in them; for admins.")
    verb(connections, "list", of="connection")(list_connections)
    verb(connections, "read", of="connection")(read_connection)
    verb(connections, "tables", of="connection")(list_tables)
    verb(connections, "columns", of="connection")(list_columns)


def preview(
    cli: Cli,
    dataset: Dataset,
    slice_: Slice = None,
    rows: Annotated[int, typer.Option(min=1, max=100, help="How many rows.")] = 5,
) -> int:
    """Show a few rows of a dataset that you can read, with a lease of one minute that is ended at once."""
    wanted = settled(cli.api, Wanted(dataset, slice=slice_, lifetime=_PREVIEW_SECONDS))
    program = programs.program_for(dataset, wanted.kind, "read") if wanted.kind else ""
    with borrowed(cli, wanted) as credential:
        command = client_of(credential.kind).preview(program, credential, rows)
        if command is None:
            raise Fault(
                Code.USAGE,
                f"No rows can be shown of a slice of kind {credential.kind}.",
                next_step=f"guestkey connect {dataset}",
            )
        surroundings = variables.environment(credential.kind, credential.values, os.environ)
        code = children.run(command, surroundings)
    return Code.FAULT if code else Code.DONE


def new_dataset(
    cli: Cli,
    dataset: Annotated[str, typer.Argument(help="The short name; it cannot be changed later.", metavar="DATASET")],
    title: Annotated[str, typer.Option(help="The title.")],
    description: Annotated[str, typer.Option(help="The description.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="NAME:VALUE; rules use labels.")] = None,
    owner: Annotated[str | None, typer.Option(help="Id of the person who decides about it.")] = None,
    kept_until: Annotated[str | None, typer.Option(help="Such as 2030-12-31T23:59:59Z; default: no end.")] = None,
) -> None:
    """Create a dataset; no one has access until it has slices, offers and grants."""
    body = {
        "slug": dataset,
        "title": title,
        "description": description,
        "labels": label or [],
        "owner": owner,
        "retention_until": kept_until,
    }
    made = cli.api.post("/datasets", body)
    cli.out.done(
        f"The dataset {made['slug']} was created. Next: guestkey slice add {made['slug']} NAME --connection …",
        made,
    )


def add_slice(
    cli: Cli,
    dataset: Dataset,
    slice_: Name,
    connection: Annotated[str, typer.Option(help="Name of the connection.", autocompletion=CONNECTION)],
    table: Annotated[str | None, typer.Option(help="SCHEMA.TABLE, in a database.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column to show; repeat for each column.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows like: site=berlin, age>=18, 'site in \"Ulm, Nord\",Bonn', 'x is null'."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Its kind: guestkey kind list; a database of PostgreSQL if left out.", autocompletion=completing.KINDS
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="For other kinds: where the data is, as NAME=VALUE.", metavar="NAME=VALUE"),
    ] = None,
    action: Annotated[list[str] | None, typer.Option(help="read (default) or write; repeat for both.")] = None,
    description: Annotated[str, typer.Option(help="A description of the slice.")] = "",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Faster: guests' conditions use indexes, but guests can find out values of hidden rows."
        ),
    ] = False,
) -> None:
    """Register a slice: columns and rows of a table, or, with --kind, data behind another connection."""
    if kind is None or client_of(kind).of_tables:
        bound = _of_table(table, column or [], where or [])
    elif table or column or where:
        raise Fault(
            Code.USAGE,
            f"A slice of kind {kind} has no table, columns or rows.",
            next_step="Say where the data is with --set NAME=VALUE.",
        )
    else:
        bound = dict(_named(text) for text in set_ or [])
    body = {
        "name": slice_,
        "description": description,
        **({"kind": kind} if kind else {}),
        "binding": {"connection": connection, **bound, **({"fast": True} if fast else {})},
        "actions": action or ["read"],
    }
    made = cli.api.post(f"/datasets/{segment(dataset)}/slices", body)
    if waits(cli, made, f"The slice {slice_}"):
        return
    of = cli.api.get(f"/datasets/{segment(dataset)}")
    if made["name"] in of.get("slices_without_rule", []):
        cli.out.alarm(f"No rule allows access to the slice {made['name']}. Next: guestkey policy show")
    cli.out.done(f"The slice {made['name']} is {made['state']}. Next: guestkey dataset show {dataset}", made)


def _of_table(table: str | None, columns: list[str], where: list[str]) -> Json:
    if not table or not columns:
        raise Fault(
            Code.USAGE,
            "A slice of a database needs --table, and --column for each column to show.",
            next_step="guestkey connection tables CONNECTION",
        )
    schema, name = _place(table)
    return {"schema": schema, "table": name, "columns": columns, "rows": [condition(text) for text in where]}


def _named(text: str) -> tuple[str, str]:
    name, is_, value = text.partition("=")
    if not name or not is_:
        raise Fault(Code.USAGE, f"{text!r} has no name.", next_step="Write --set NAME=VALUE.")
    return name, value


def retry_slice(cli: Cli, dataset: Dataset, slice_: Name) -> None:
    """Register a slice that failed again, once the cause is fixed."""
    made = cli.api.post(f"/datasets/{segment(dataset)}/slices/{segment(slice_)}/retry")
    cli.out.done(f"The slice {made['name']} is {made['state']} again.", made)


def repair_slice(
    cli: Cli,
    dataset: Dataset,
    slice_: Name,
    connection: Annotated[str, typer.Option(help="Name of the connection.", autocompletion=CONNECTION)],
    table: Annotated[str | None, typer.Option(help="SCHEMA.TABLE, in a database.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="A column to show; repeat for each column.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="Only rows like these; see guestkey slice add.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="For other kinds: where the data is, as NAME=VALUE.", metavar="NAME=VALUE"),
    ] = None,
) -> None:
    """Correct the binding of a slice that failed, and register it again."""
    bound = dict(_named(text) for text in set_) if set_ else _of_table(table, column or [], where or [])
    path = f"/datasets/{segment(dataset)}/slices/{segment(slice_)}/binding"
    made = cli.api.put(path, {"binding": {"connection": connection, **bound}})
    cli.out.done(f"The slice {made['name']} is {made['state']} again. Next: guestkey dataset show {dataset}", made)


def set_fast(
    cli: Cli,
    dataset: Dataset,
    slice_: Name,
    off: Annotated[bool, typer.Option("--off", help="Hide values of hidden rows again.")] = False,
) -> None:
    """Make queries on a slice with hidden rows faster, using indexes; for the dataset's owner.

    Guests can then find out whether a value exists in a hidden row, and see estimates over all rows. The hidden rows
    stay hidden.
    """
    made = cli.api.put(f"/datasets/{segment(dataset)}/slices/{segment(slice_)}/fast", {"fast": not off})
    cli.out.done(f"The slice {made['name']} is {made['state']} again.", made)


def confirm_slice(cli: Cli, dataset: Dataset, slice_: Name) -> None:
    """Confirm a slice whose table has changed; for the dataset's owner."""
    made = cli.api.post(f"/datasets/{segment(dataset)}/slices/{segment(slice_)}/confirm")
    cli.out.done(f"The slice {made['name']} is {made['state']} again.", made)


def retire_slice(cli: Cli, dataset: Dataset, slice_: Name, reason: Reason) -> None:
    """Retire a slice; its leases end."""
    ended = cli.api.post(f"/datasets/{segment(dataset)}/slices/{segment(slice_)}/retire", {"reason": reason})
    cli.out.done(f"The slice is retired; {len(ended['leases'])} leases are ending.", ended)


def list_connections(
    cli: Cli,
    kind: Annotated[str | None, typer.Option(help="Only of one kind.", autocompletion=completing.KINDS)] = None,
) -> None:
    """List the connections of every kind, and whether they respond, if workers check that."""
    found = cli.api.get("/connections", kind=kind)["items"]
    cli.out.items(_CONNECTIONS, found, none="No connections yet. On the server: guestkey connect-backend --help")


def read_connection(cli: Cli, connection: Connection) -> None:
    """Read the names of a database's tables and columns again."""
    asked = cli.api.post(f"/connections/{segment(connection)}/read")
    cli.out.done(f"The database is being read. Next: guestkey connection tables {connection}", asked)


def list_tables(
    cli: Cli,
    connection: Connection,
    part: Annotated[str, typer.Option(help="Part of the name SCHEMA.TABLE.")] = "",
    limit: Limit = 100,
) -> None:
    """List the tables and views of a database that can be used for slices."""
    found = cli.api.pages(f"/connections/{segment(connection)}/tables", limit, part=part or None)
    cli.out.items(
        _TABLES,
        [_told(table) for table in found],
        none="No tables, or the database was never read: guestkey connection read",
    )


def list_columns(
    cli: Cli, connection: Connection, table: Annotated[str, typer.Argument(help="SCHEMA.TABLE", metavar="TABLE")]
) -> None:
    """List a table's columns, and which look like personal data, judged by names, types and statistics."""
    schema, name = _place(table)
    found = cli.api.get(f"/connections/{segment(connection)}/tables/{segment(schema)}/{segment(name)}")
    cli.out.items(_COLUMNS, found["columns"], none="None.")
    cli.out.remark(str(found["guessed"]))


def condition(text: str) -> list[Any]:
    """A condition on rows as a binding has it; its values stay text, which the server reads as their column's type."""
    try:
        return filter_text.read_condition(text)
    except filter_text.FilterSyntaxError as error:
        raise Fault(
            Code.USAGE,
            str(error),
            next_step="Write it as site=berlin, age>=18, 'site in \"Ulm, Nord\",Bonn' or 'site is not null'.",
        ) from None


def _place(table: str) -> tuple[str, str]:
    """Schema and name; as in PostgreSQL, a bare name is one of `public`."""
    schema, _, name = table.rpartition(".")
    return schema or "public", name


def _told(table: Json) -> Json:
    personal = [str(column["name"]) for column in table["columns"] if column["personal"]]
    return {**table, "counted": len(table["columns"]), "personal": personal}
