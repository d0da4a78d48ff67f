"""`guestkey connect-backend postgres`: guided set-up of a customer's database, by the operator on the server."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.base.database import Database
from broker.base.errors import Invalid
from broker.base.settings import Settings
from broker.kinds.postgres.connection import PostgresConnection
from broker.operator import connect_ssh
from broker.operator.asking import OptionMissing, agreed, ask, ask_secret
from broker.operator.configuring import AsJson, Told, load, plainly
from broker.operator.connecting import parts
from broker.operator.connecting.connecting import Asked, Login, connect, look, mend, secrets_folder
from broker.operator.connecting.keystore import operator
from broker.operator.connecting.parts import Item
from broker.operator.connecting.passwords import Passwords
from broker.operator.connecting.place import NONE, STRICT, Place, checked

PARTLY = 9
app = typer.Typer(help="Connect a system that holds data to OpenBao.", no_args_is_help=True, rich_markup_mode=None)


app.command()(connect_ssh.ssh)


@app.command()
def postgres(
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
    operator_secret_id_file: Annotated[
        Path | None, typer.Option(help="Secret id of the identity guestkey-operator.")
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Never ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Connect a PostgreSQL database: check it, print what its administrator must run, give it to OpenBao, prove it.

    The broker never sees an administrator's password. Exit code 9 where something is missing; run it again then.
    """
    with plainly("connect-backend postgres", as_json=as_json) as out:
        talk = Talk(out, asks=sys.stdin.isatty() and not yes and not as_json)
        settings = load()
        place = _place(talk, name, host, port, dbname, tls, ca_file, unsafe_tls=unsafe_tls)
        asked = Asked(
            place,
            Passwords(secrets_folder(place.name, secrets)),
            _login(talk, user, password_file),
            frozenset(leave_open or []),
            reset_logins,
        )
        talk.warn(place, asked)
        items = look(asked, settings)
        if apply and not only_check:
            for line in mend(asked, items):
                talk.say(f"! {line}")
            items = look(asked, settings)
        items = items if only_check else _until_mended(talk, asked, settings, items)
        if only_check or _missing(items):
            talk.checked(place, items)
            raise typer.Exit(PARTLY if _missing(items) else 0)
        talk.checked(place, items, over=False)
        _connect(talk, asked, settings, operator_secret_id_file, items)


class Talk:
    """What is said to the operator, and asked."""

    def __init__(self, out: Told, *, asks: bool) -> None:
        self.asks = asks
        self.as_json = out.as_json
        self._out = out

    def ask(self, what: str, option: str, default: str | None = None) -> str:
        """An answer, or an error that names the option."""
        if not self.asks:
            if default is not None:
                return default
            raise OptionMissing(f"{option} is missing.", advice=f"Give {option}, or run it in a terminal to be asked.")
        return ask(what, default)

    def say(self, line: str) -> None:
        """One line on what was done, for people."""
        typer.echo(line, err=True)

    def warn(self, place: Place, asked: Asked) -> None:
        """Say aloud what was chosen to be unsafe."""
        if place.tls not in (STRICT, NONE):
            self.say(
                f"! UNSAFE: with TLS {place.tls} another server can pose as {place.host} and be told the passwords."
            )
        if parts.FUNCTIONS in asked.left_open:
            self.say("! UNSAFE: guests may fill the lock table and the WAL of that server.")
        if parts.SERVER_LOG in asked.left_open:
            self.say("! UNSAFE: guests may fill the disk that the server's log is on.")
        for name in sorted(asked.left_open - {parts.FUNCTIONS, parts.SERVER_LOG}):
            self.say(f"! UNSAFE: guests may enter the database {name}; what they make there is not taken away.")

    def checked(self, place: Place, items: list[Item], *, over: bool = True) -> None:
        """What is there and what is missing; the SQL on standard output."""
        if self.as_json:
            if over:
                self.document(place, items, connected=False)
            return
        for item in items:
            mark = "✓" if item.ok else "✕" if item.needed else "!"
            self.say(f"{mark} {item.what}{'' if item.ok or item.needed else ' (advised)'}")
        if any(not item.ok for item in items):
            typer.echo(parts.as_script(items))

    def document(self, place: Place, items: list[Item], *, connected: bool, **more: Any) -> None:
        """Everything as one JSON document."""
        data = {"connection": place.name, "connected": connected, **more}
        data["items"] = [dataclasses.asdict(item) for item in items]
        data["sql"] = parts.as_script(items) if any(not item.ok for item in items) else ""
        self._out.told([], data)


def _place(
    talk: Talk,
    name: str | None,
    host: str | None,
    port: int | None,
    dbname: str | None,
    tls: str,
    ca_file: Path | None,
    *,
    unsafe_tls: bool,
) -> Place:
    host = host or talk.ask("Host of the database", "--host")
    port = port if port is not None else _number(talk.ask("Port", "--port", "5432"))
    dbname = dbname or talk.ask("Name of the database", "--dbname")
    name = name or talk.ask("Name that slices use for it", "--name")
    if ca_file is None and tls != NONE and talk.asks:
        ca_file = Path(talk.ask("CA file", "--ca-file", "/etc/ssl/certs/ca-certificates.crt"))
    return checked(name, host, port, dbname, tls, ca_file, unsafe_tls=unsafe_tls)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise Invalid("A port is between 1 and 65535.", field="/port")
    return int(text)


def _login(talk: Talk, user: str | None, password_file: Path | None) -> Login | None:
    if user is None:
        return None
    if password_file is not None:
        return Login(user, password_file.read_text().rstrip("\n"))
    if not talk.asks:
        raise OptionMissing("--password-file is missing.", advice="Passwords are never read from the command line.")
    return Login(user, ask_secret(f"Password of {user}"))


def _missing(items: list[Item]) -> bool:
    return any(item.needed and not item.ok for item in items)


def _until_mended(talk: Talk, asked: Asked, settings: Settings, items: list[Item]) -> list[Item]:
    """Where somebody sits at the terminal: show what to run, wait, look again."""
    while talk.asks and _missing(items):
        talk.checked(asked.place, items)
        if not agreed("Has the database's administrator run this? Check again"):
            break
        # Passwords made for the SQL let the watch in now, so that no other login is needed.
        items = look(asked, settings)
    return items


def _connect(talk: Talk, asked: Asked, settings: Settings, secret_id_file: Path | None, items: list[Item]) -> None:
    file = secret_id_file or Path(talk.ask("File with the operator's secret id", "--operator-secret-id-file"))
    url = str(settings.database_url.get_secret_value())
    database = Database(url, pool_size=2, timeout=settings.database_timeout)
    try:
        with operator(str(settings.bao_addr), settings.bao_ca_file, file) as store:
            new = connect(asked, settings, database, store, talk.say)
    finally:
        database.close()
    place = asked.place
    shown = PostgresConnection(
        host=place.host,
        port=place.port,
        dbname=place.dbname,
        sslmode=place.tls,
        sslrootcert=str(place.ca_file) if place.ca_file else None,
    )
    known = {**settings.connections("postgres"), place.name: shown}
    setting = json.dumps({key: value.model_dump(exclude_none=True) for key, value in known.items()})
    if talk.as_json:
        talk.document(place, items, connected=True, new=new, postgres_connections=json.loads(setting))
        return
    talk.say(f"The database {place.name} is connected." if new else f"The database {place.name} was connected already.")
    talk.say("Set this for web and worker; host and CA file as guests reach them:")
    typer.echo(f"GUESTKEY_POSTGRES_CONNECTIONS={setting}")
    talk.say("Let the registrar read what slices are to be made of: GRANT USAGE ON SCHEMA s TO guestkey_registrar;")
    talk.say("GRANT SELECT ON s.t TO guestkey_registrar;")
