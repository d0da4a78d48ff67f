"""Connecting a database, step by step, so that each run completes what the one before left and nothing is half open.

Until the minter's password is rotated everything can be run again; from then on only OpenBao knows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import exists, select

from broker.base.database import Database
from broker.base.database import now as clock
from broker.base.errors import BackendDown, Conflict, Invalid
from broker.base.settings import Settings
from broker.kinds.postgres.sessions import watch_session
from broker.log import audit
from broker.models import Event
from broker.operator.connecting import parts
from broker.operator.connecting.keystore import KeyStore
from broker.operator.connecting.parts import Item
from broker.operator.connecting.passwords import LOGINS, Passwords
from broker.operator.connecting.place import Place, Session, open_session
from broker.operator.connecting.probing import probe
from broker.operator.connecting.refusing import unfit
from broker.operator.connecting.why_refused import LoginRefused
from broker.runtime.parts import vault_of

CONNECTED = "backend.connected"


@dataclass(frozen=True, slots=True)
class Login:
    """A login of the customer's that looks, and where asked mends. Never kept."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator asked for."""

    place: Place
    passwords: Passwords
    login: Login | None = None
    left_open: frozenset[str] = frozenset()
    reset_logins: bool = False


def look(asked: Asked, settings: Settings) -> list[Item]:
    """What is there and what is missing. Without a login that gets in, everything counts as missing.

    Raises:
        Invalid, Conflict: the database must not be connected at all.
        BackendDown: it cannot be reached, or its TLS proves nothing.
    """
    opened = _enter(asked, settings)
    if opened is None:
        return parts.whole(asked.place.dbname, asked.passwords)
    session, user = opened
    with session:
        unfit(session, asked.place, user, settings.database_url.get_secret_value())
        items = parts.check(session, asked.passwords, left_open=asked.left_open)
    return [*items, *_resets(asked, items)]


def mend(asked: Asked, items: list[Item]) -> list[str]:
    """Run what is missing with the customer's login; returns what it was not allowed to, each with a reason.

    Raises:
        Invalid: no login was given.
    """
    if asked.login is None:
        raise Invalid("To change the database a login is needed.", field="/user", advice="Give --user.")
    refused = []
    with open_session(asked.place, asked.login.user, asked.login.password) as session:
        for item in items:
            if not item.ok:
                try:
                    _run(session, item.sql)
                except psycopg.Error as error:
                    reason = error.diag.message_primary or type(error).__name__
                    refused.append(f"{item.what}: {reason}")
    return refused


def connect(asked: Asked, settings: Settings, database: Database, store: KeyStore, told: Callable[[str], None]) -> bool:
    """Give the database to OpenBao, prove that it works, record it. Returns whether anything was new.

    Raises:
        Conflict: the name or the server is taken, a login's password is not known, or a step did not work.
        BackendDown: a part of it does not answer.
    """
    place, passwords = asked.place, asked.passwords
    begun = _begun(place, store.connections())
    works = {login: _lets_in(place, login, passwords) for login in LOGINS}
    if not begun and not all(works.values()):
        raise _unknown(place, passwords, [login for login in LOGINS if not works[login]])
    if works["minter"]:
        # Not rotated yet: this is the first time, or one that broke off.
        store.configure(place, passwords.made("minter"))
        told("OpenBao has logged in as the minter.")
    for login in ("registrar", "watch"):
        if works[login]:
            store.keep(place, login, passwords.made(login))
    if works["minter"]:
        store.rotate(place.name)
        told("OpenBao has changed the minter's password; nobody else knows it.")
    setup, ender = vault_of(settings, "setup"), vault_of(settings, "ender")
    try:
        user = probe(store, setup, ender, place)
    except BackendDown as error:
        if begun and not (works["registrar"] and works["watch"]):
            raise Conflict(error.detail, advice="Run it again with --reset-logins.") from error
        raise
    told(f"A probe's user, {user}, was made, logged in, was ended, and is confirmed gone.")
    passwords.forget()
    return _record(place, database, changed=any(works.values()))


def _enter(asked: Asked, settings: Settings) -> tuple[Session, str] | None:
    """A session to look with: the customer's login, or else the watch if its password is still at hand."""
    if asked.login is not None:
        try:
            return open_session(asked.place, asked.login.user, asked.login.password), asked.login.user
        except LoginRefused as error:
            raise Invalid(str(error), field="/user", advice="Check user, password and pg_hba.conf.") from error
    password = asked.passwords.known("watch")
    # Also a wrong password proves host and TLS.
    try:
        return open_session(asked.place, "guestkey_watch", password or "not made yet"), "guestkey_watch"
    except LoginRefused:
        return _as_connected(asked.place, settings)


def _as_connected(place: Place, settings: Settings) -> tuple[Session, str] | None:
    """The watch's own session, where this very database is connected already."""
    if settings.bao_ender is None:
        return None
    try:
        session = watch_session(vault_of(settings, "ender"), place.name)
    except BackendDown:
        return None
    info = session.info
    if (info.host, info.port, info.dbname) != (place.host, place.port, place.dbname):
        session.close()
        return None
    return session, info.user


def _resets(asked: Asked, items: list[Item]) -> list[Item]:
    """New passwords for logins that exist and do not work, where the operator wants that."""
    if not asked.reset_logins:
        return []
    there = {item.part for item in items if item.ok}
    return [
        Item(f"{login}-password", f"The {login}'s password is the one made here", ok=False, needed=True, sql=mended)
        for login in LOGINS
        if login in there and not _lets_in(asked.place, login, asked.passwords)
        for mended in [parts.new_password(login, asked.passwords)]
    ]


def _lets_in(place: Place, login: str, passwords: Passwords) -> bool:
    password = passwords.known(login)
    if password is None:
        return False
    try:
        open_session(place, f"guestkey_{login}", password).close()
    except LoginRefused:
        return False
    return True


def _run(session: Session, script: str) -> None:
    with session.transaction():
        session.execute("SET LOCAL createrole_self_grant = 'set, inherit'")
        session.execute(script)


def _begun(place: Place, connections: dict[str, str]) -> bool:
    """Whether this very database is under this very name already.

    Raises:
        Conflict: the name stands for another database, or another name for one of this server.
    """
    here = f"@{place.tail.partition('/')[0]}/"
    for name, address in connections.items():
        if name == place.name:
            if place.template.partition("?")[0] == address.partition("?")[0]:
                continue
            raise Conflict(
                f"The name {name} stands for another database already.", advice="Choose another name with --name."
            )
        if here in address:
            raise Conflict(
                f"This server is connected already, as {name}.",
                advice="Its users belong to the whole server, so one of its databases can be connected, not two.",
            )
    return place.name in connections


def _unknown(place: Place, passwords: Passwords, logins: list[str]) -> Conflict:
    names = ", ".join(f"guestkey_{login}" for login in logins)
    return Conflict(
        f"The database does not let in {names} with the passwords in {passwords.folder}.",
        advice="If no other Guestkey uses this server, run it again with --reset-logins: it makes new ones.",
    )


def _record(place: Place, database: Database, *, changed: bool) -> bool:
    details = {"host": place.host, "port": place.port, "database": place.dbname, "tls": place.tls}
    known = exists().where(Event.kind == CONNECTED, Event.subject == place.name)
    with database.transaction() as tx:
        if not changed and tx.scalar(select(known)):
            return False
        audit.record(tx, CONNECTED, actor="operator", subject=place.name, now=clock(tx), details=details)
    return True


def secrets_folder(name: str, given: Path | None) -> Path:
    """Where the logins' passwords lie until the database is connected."""
    return given or Path.cwd() / f"guestkey-connect-{name}"
