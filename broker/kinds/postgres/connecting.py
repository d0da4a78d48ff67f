"""Connecting a PostgreSQL database: check it, print what its administrator must run, give it to OpenBao, prove it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.base.errors import Invalid
from broker.kinds.connecting import Connected, ConnectingContext, OptionMissing
from broker.kinds.postgres import required_parts
from broker.kinds.postgres.address import NONE, STRICT, checked
from broker.kinds.postgres.connecting_steps import Asked, give, look, mend
from broker.kinds.postgres.connection import PostgresConnection
from broker.kinds.postgres.required_parts import Item, Passwords


def connect(
    desk: ConnectingContext,
    name: Annotated[str | None, typer.Option(help="The name that slices use for it: lower case.")] = None,
    host: Annotated[str | None, typer.Option(help="Its host's name, as in its certificate.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; 5432 if left out.")] = None,
    dbname: Annotated[str | None, typer.Option(help="The database that holds the datasets.")] = None,
    tls: Annotated[str, typer.Option(help="verify-full; weaker ones need --unsafe-tls.")] = STRICT,
    unsafe_tls: Annotated[
        bool, typer.Option("--unsafe-tls", help="Accept that another server may pose as this one.")
    ] = False,
    ca_file: Annotated[
        Path | None, typer.Option(help="Its authority's certificates; OpenBao and worker read the same file.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="A login that is not a superuser, to check with; not stored.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with that login's password.")] = None,
    secrets: Annotated[
        Path | None, typer.Option(help="Folder for the new logins' passwords until it is connected.")
    ] = None,
    only_check: Annotated[
        bool, typer.Option("--check", help="Only check, and print the SQL for what is missing.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Run that SQL with --user, as far as it may.")] = False,
    reset_logins: Annotated[
        bool, typer.Option("--reset-logins", help="Give our logins new passwords where these are lost.")
    ] = False,
    leave_open: Annotated[
        list[str] | None,
        typer.Option(
            help="A database of that server guests may enter, `functions`, or `server-log`. Unsafe.", metavar="DATABASE"
        ),
    ] = None,
) -> Connected:
    """Connect a PostgreSQL database: check it, print what its administrator must run, give it to OpenBao, prove it.

    The broker never sees an administrator's password. Exit code 9 where something is missing; run it again then.
    """
    host = host or desk.ask("Host of the database", "--host")
    if port is None:
        given = desk.ask("Port", "--port", "5432")
        if not given.isascii() or not given.isdigit():
            raise Invalid("A port is between 1 and 65535.", field="/port")
        port = int(given)
    dbname = dbname or desk.ask("Name of the database", "--dbname")
    name = name or desk.ask("Name that slices use for it", "--name")
    if ca_file is None and tls != NONE and desk.asks:
        ca_file = Path(desk.ask("CA file", "--ca-file", "/etc/ssl/certs/ca-certificates.crt"))
    address = checked(name, host, port, dbname, tls, ca_file, unsafe_tls=unsafe_tls)
    folder = secrets or Path.cwd() / f"guestkey-connect-{address.name}"
    login = _login(desk, user, password_file)
    asked = Asked(address, Passwords(folder), login, frozenset(leave_open or []), reset_logins)
    _warn(desk, asked)
    items = look(asked, desk)
    if apply and not only_check:
        for line in mend(asked, items):
            desk.say(f"! {line}")
        items = look(asked, desk)
    items = items if only_check else _until_mended(desk, asked, items)
    _show(desk, items)
    if only_check or _missing(items):
        return Connected(address.name, "database", connected=False, missing=_missing(items), document=_document(items))
    with desk.keystore() as store:
        changed = give(asked, desk, store)
    return Connected(
        address.name,
        "database",
        PostgresConnection(
            host=address.host,
            port=address.port,
            dbname=address.dbname,
            sslmode=address.tls,
            sslrootcert=str(address.ca_file) if address.ca_file else None,
        ),
        changed=changed,
        details={"host": address.host, "port": address.port, "database": address.dbname, "tls": address.tls},
        document=_document(items),
        advice=(
            "Let the registrar read what slices are to be made of: GRANT USAGE ON SCHEMA s TO guestkey_registrar;",
            "GRANT SELECT ON s.t TO guestkey_registrar;",
        ),
    )


def _login(desk: ConnectingContext, user: str | None, password_file: Path | None) -> tuple[str, str] | None:
    if user is None:
        return None
    if password_file is not None:
        return user, password_file.read_text().rstrip("\n")
    if not desk.asks:
        raise OptionMissing("--password-file is missing.", advice="Passwords are never read from the command line.")
    return user, desk.ask_secret(f"Password of {user}")


def _warn(desk: ConnectingContext, asked: Asked) -> None:
    """Say aloud what was chosen to be unsafe."""
    address = asked.address
    if address.tls not in (STRICT, NONE):
        desk.say(
            f"! UNSAFE: with TLS {address.tls} another server can pose as {address.host} and be told the passwords."
        )
    if required_parts.FUNCTIONS in asked.left_open:
        desk.say("! UNSAFE: guests may fill the lock table and the WAL of that server.")
    if required_parts.SERVER_LOG in asked.left_open:
        desk.say("! UNSAFE: guests may fill the disk that the server's log is on.")
    for name in sorted(asked.left_open - {required_parts.FUNCTIONS, required_parts.SERVER_LOG}):
        desk.say(f"! UNSAFE: guests may enter the database {name}; what they make there is not taken away.")


def _missing(items: list[Item]) -> bool:
    return any(item.needed and not item.ok for item in items)


def _until_mended(desk: ConnectingContext, asked: Asked, items: list[Item]) -> list[Item]:
    """Where somebody sits at the terminal: show what to run, wait, look again."""
    while desk.asks and _missing(items):
        _show(desk, items)
        if not desk.agreed("Has the database's administrator run this? Check again"):
            break
        # Passwords made for the SQL let the watch in now, so that no other login is needed.
        items = look(asked, desk)
    return items


def _show(desk: ConnectingContext, items: list[Item]) -> None:
    """What is there and what is missing; the SQL on standard output."""
    if desk.as_json:
        return
    for item in items:
        mark = "✓" if item.ok else "✕" if item.needed else "!"
        desk.say(f"{mark} {item.what}{'' if item.ok or item.needed else ' (advised)'}")
    if script := required_parts.as_script(items):
        desk.show(script)


def _document(items: list[Item]) -> dict[str, Any]:
    return {"items": [dataclasses.asdict(item) for item in items], "sql": required_parts.as_script(items)}
