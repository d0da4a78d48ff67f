"""Connecting a database, step by step, so that each run completes what the one before left and nothing is half open.

Until the minter's password is rotated everything can be run again; from then on only OpenBao knows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from pydantic import PostgresDsn

from broker.base.errors import BackendDown, Conflict, Invalid
from broker.keystore.operator import OperatorStore
from broker.keystore.vault import Vault
from broker.kinds.connecting import ConnectingContext
from broker.kinds.postgres import required_parts, slices
from broker.kinds.postgres.address import OLDEST, Address, LoginRefused, open_session
from broker.kinds.postgres.kind import drop_users_at
from broker.kinds.postgres.required_parts import LOGINS, Item, Passwords
from broker.kinds.postgres.sessions import Session, watch_session
from broker.kinds.postgres.slices import role_definition

_RECORDS = """SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'guestkey' AND c.relname IN ('installation', 'lease', 'event')"""

# OpenBao names users after the display name of the token that asks; the operator's is its way of logging in.
_PROBE_USER = "gk_approle"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operator asked for. `login` is the customer's, user and password, which looks and mends. Never kept."""

    address: Address
    passwords: Passwords
    login: tuple[str, str] | None = None
    left_open: frozenset[str] = frozenset()
    reset_logins: bool = False


def look(asked: Asked, desk: ConnectingContext) -> list[Item]:
    """What is there and what is missing. Without a login that gets in, everything counts as missing.

    Raises:
        Invalid, Conflict: the database must not be connected at all.
        BackendDown: it cannot be reached, or its TLS proves nothing.
    """
    session = _enter(asked, desk)
    if session is None:
        return required_parts.whole(asked.address.dbname, asked.passwords)
    with session:
        _unfit(session, asked.address, desk.settings.database_url.get_secret_value())
        items = required_parts.check(session, asked.passwords, left_open=asked.left_open)
    return [*items, *_resets(asked, items)]


def mend(asked: Asked, items: list[Item]) -> list[str]:
    """Run what is missing with the customer's login; returns what it was not allowed to, each with a reason.

    Raises:
        Invalid: no login was given.
    """
    if asked.login is None:
        raise Invalid("To change the database a login is needed.", field="/user", advice="Give --user.")
    refused = []
    with open_session(asked.address, *asked.login) as session:
        for item in items:
            if not item.ok:
                try:
                    with session.transaction():
                        session.execute("SET LOCAL createrole_self_grant = 'set, inherit'")
                        session.execute(item.sql)
                except psycopg.Error as error:
                    reason = error.diag.message_primary or type(error).__name__
                    refused.append(f"{item.what}: {reason}")
    return refused


def give(asked: Asked, desk: ConnectingContext, store: OperatorStore) -> bool:
    """Give the database to OpenBao and prove that it works. Returns whether anything was new.

    Raises:
        Conflict: the name or the server is taken, a login's password is not known, or a step did not work.
        BackendDown: a part of it does not answer.
    """
    address, passwords = asked.address, asked.passwords
    begun = _begun(address, store.connections())
    works = {login: _lets_in(address, login, passwords) for login in LOGINS}
    if not begun and not all(works.values()):
        names = ", ".join(f"guestkey_{login}" for login in LOGINS if not works[login])
        raise Conflict(
            f"The database does not let in {names} with the passwords in {passwords.folder}.",
            advice="If no other Guestkey uses this server, run it again with --reset-logins: it makes new ones.",
        )
    if works["minter"]:
        # Not rotated yet: this is the first time, or one that broke off.
        plugin = {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": address.template,
            "username": "guestkey_minter",
            "password": passwords.made("minter"),
            "password_authentication": "scram-sha-256",
        }
        store.configure(address.name, plugin)
        desk.say("OpenBao has logged in as the minter.")
    for login in ("registrar", "watch"):
        if works[login]:
            url = address.url(f"guestkey_{login}", passwords.made(login))
            store.keep(f"{address.name}/{login}", {"url": url})
    if works["minter"]:
        store.rotate(address.name)
        desk.say("OpenBao has changed the minter's password; nobody else knows it.")
    try:
        user = probe(store, desk.setup(), desk.ender(), address)
    except BackendDown as error:
        if begun and not (works["registrar"] and works["watch"]):
            raise Conflict(error.detail, advice="Run it again with --reset-logins.") from error
        raise
    desk.say(f"A probe's user, {user}, was made, logged in, was ended, and is confirmed gone.")
    passwords.forget()
    return any(works.values())


def _unfit(session: Session, address: Address, records: PostgresDsn) -> None:
    """Refuse what makes a database unfit to be connected, whatever else is right with it."""
    version = session.info.server_version // 10000
    if version < OLDEST:
        raise Invalid(
            f"This is PostgreSQL {version}; Guestkey needs {OLDEST} or newer.",
            advice="Older versions let a guest take on a slice's role and outlive its own. Upgrade the server.",
        )
    row = session.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is None or row[0]:
        raise Invalid(
            f"{session.info.user} is a superuser, and connecting needs none.",
            field="/user",
            advice="Give a login that is none. What only a superuser may do is printed for them to run.",
        )
    same = [host for host in records.hosts() if (host["host"], host["port"] or 5432) == (address.host, address.port)]
    own = same and (records.path or "").lstrip("/") == address.dbname
    if own or session.execute(_RECORDS).fetchone() is not None:
        raise Conflict(
            "These are the broker's own records.",
            advice="Guests must never be able to enter that database. Connect the one that holds the datasets.",
        )


def _enter(asked: Asked, desk: ConnectingContext) -> Session | None:
    """A session to look with: the customer's login, or else the watch if its password is still at hand."""
    if asked.login is not None:
        try:
            return open_session(asked.address, *asked.login)
        except LoginRefused as error:
            raise Invalid(str(error), field="/user", advice="Check user, password and pg_hba.conf.") from error
    # Also a wrong password proves host and TLS.
    try:
        return open_session(asked.address, "guestkey_watch", asked.passwords.known("watch") or "not made yet")
    except LoginRefused:
        return _as_connected(asked.address, desk)


def _as_connected(address: Address, desk: ConnectingContext) -> Session | None:
    """The watch's own session, where this very database is connected already."""
    if desk.settings.bao_ender is None:
        return None
    try:
        session = watch_session(desk.ender(), address.name)
    except BackendDown:
        return None
    info = session.info
    if (info.host, info.port, info.dbname) != (address.host, address.port, address.dbname):
        session.close()
        return None
    return session


def _resets(asked: Asked, items: list[Item]) -> list[Item]:
    """New passwords for logins that exist and do not work, where the operator wants that."""
    if not asked.reset_logins:
        return []
    there = {item.part for item in items if item.ok}
    return [
        Item(f"{login}-password", f"The {login}'s password is the one made here", ok=False, needed=True, sql=mended)
        for login in LOGINS
        if login in there and not _lets_in(asked.address, login, asked.passwords)
        for mended in [required_parts.new_password(login, asked.passwords)]
    ]


def _lets_in(address: Address, login: str, passwords: Passwords) -> bool:
    password = passwords.known(login)
    if password is None:
        return False
    try:
        open_session(address, f"guestkey_{login}", password).close()
    except LoginRefused:
        return False
    return True


def _begun(address: Address, connections: dict[str, str]) -> bool:
    """Whether this very database is under this very name already; refuses a name or a server that is taken."""
    here = f"@{address.tail.partition('/')[0]}/"
    for name, url in connections.items():
        if name == address.name:
            if address.template.partition("?")[0] == url.partition("?")[0]:
                continue
            raise Conflict(
                f"The name {name} stands for another database already.", advice="Choose another name with --name."
            )
        if here in url:
            raise Conflict(
                f"This server is connected already, as {name}.",
                advice="Its users belong to the whole server, so one of its databases can be connected, not two.",
            )
    return address.name in connections


def probe(store: OperatorStore, setup: Vault, ender: Vault, place: Address) -> str:
    """Walk the whole way of a lease, with a group and a user that can see nothing. Returns the name it had.

    What a probe that died half-way left behind ends by itself within a minute, and is taken away first.

    Raises:
        Conflict: some step does not work.
        BackendDown: OpenBao or the database does not answer.
    """
    role = f"gk-probe-{place.name}"
    with slices.probe_group(setup, place.name) as group:
        setup.write_role("database", role, role_definition(place.name, group))
        try:
            drop_users_at(ender, place.name, [_PROBE_USER])
            made = store.credential(role)
            _log_in(place, made.username, made.password)
            ender.revoke_lease(made.lease_id)
            left = drop_users_at(ender, place.name, [made.username])[made.username]
        finally:
            setup.delete_role("database", role)
    if left:
        raise Conflict(f"The probe's user was ended and is still there: {left}.", advice="Run it again.")
    return made.username


def _log_in(place: Address, user: str, password: str) -> None:
    try:
        open_session(place, user, password).close()
    except LoginRefused as error:
        raise Conflict(
            "OpenBao made a user, and the database does not let it in.",
            advice="Its pg_hba.conf must let users gk_* in, over TLS, from where guests and this machine are.",
        ) from error
    except BackendDown as error:
        raise Conflict(error.detail, advice=error.advice) from error
