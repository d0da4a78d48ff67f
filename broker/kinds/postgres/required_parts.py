"""What a database of datasets needs, part by part: is it there, and the SQL that makes it.

The SQL is the very script the embedded server and `deploy/` run, cut at its `-- [part]` lines. The checks read the
system catalogues only, so any login that may connect can make them. Passwords of the three logins are in files of the
operator's own until then, and in the SQL are SCRAM verifiers (RFC 5803), from which no password follows.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from psycopg import pq, sql

from broker.base.errors import Invalid
from broker.kinds.postgres.sessions import Session

LOGINS = ("registrar", "minter", "watch")
_OTHERS = 0o077


class Passwords:
    """A folder only this user can read, with a file for each login; made on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def known(self, login: str) -> str | None:
        """The login's password, if it was made or put here.

        Raises:
            Invalid: others may read the folder or the file.
        """
        file = self._file(login)
        if not file.exists():
            return None
        for path in (self.folder, file):
            if path.is_symlink() or path.stat().st_mode & _OTHERS or path.stat().st_uid != os.geteuid():
                raise Invalid(f"{path} must be this user's alone.", advice=f"chmod go= {path}")
        return file.read_text().strip() or None

    def made(self, login: str) -> str:
        """The login's password, made if there is none."""
        if found := self.known(login):
            return found
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        password = secrets.token_urlsafe(32)
        descriptor = os.open(self._file(login), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        return password

    def verifier(self, login: str) -> str:
        """What PostgreSQL keeps of the login's password: nobody can log in with it."""
        # libpq computes it; the connection is never opened.
        connection = pq.PGconn.connect_start(b"host=/nowhere")
        try:
            made = connection.encrypt_password(
                self.made(login).encode(), f"guestkey_{login}".encode(), b"scram-sha-256"
            )
        finally:
            connection.finish()
        return made.decode()

    def forget(self) -> None:
        """Remove the files, and the folder if nothing else is in it."""
        for login in LOGINS:
            self._file(login).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _file(self, login: str) -> Path:
        return self.folder / f"{login}_password"


_PART = re.compile(r"^-- \[([a-z-]+)\]\n", re.MULTILINE)
# Attributes a login of ours must have and, negated, must not have; BYPASSRLS and the like would be more than a right.
_ATTRIBUTES = {
    "registrar": "LOGIN NOSUPERUSER NOCREATEDB CREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS",
    "minter": "LOGIN NOSUPERUSER NOCREATEDB CREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS",
    "watch": "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
}
_ROLE = """SELECT rolcanlogin AND NOT rolsuper AND NOT rolcreatedb AND rolcreaterole = %(creates)s
  AND NOT rolreplication AND NOT rolbypassrls AND (rolinherit <> %(creates)s)
  AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                   WHERE m.member = r.oid AND (g.rolsuper OR starts_with(g.rolname, 'pg_'))
                     AND g.rolname <> 'pg_use_reserved_connections')
  FROM pg_roles r WHERE rolname = %(role)s"""
# Without rights of its own a database lets everybody in; a schema nobody.
_OTHER_DATABASES = """SELECT datname FROM pg_database WHERE datallowconn AND datname <> current_database()
  AND EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE a.grantee = 0) ORDER BY 1"""
_SCHEMAS = """SELECT nspname FROM pg_namespace WHERE NOT starts_with(nspname, 'pg_') AND nspname <> 'information_schema'
  AND EXISTS (SELECT FROM aclexplode(nspacl) a WHERE a.grantee = 0) ORDER BY 1"""
_CHECKS: Mapping[str, str] = {
    "database": "SELECT NOT EXISTS (SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) a"
    " WHERE a.grantee = 0) FROM pg_database WHERE datname = current_database()",
    "large-objects": "SELECT NOT bool_or(has_function_privilege('public', p.oid, 'EXECUTE')) FROM pg_proc p"
    " WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN ('lo_create', 'lo_creat', 'lo_from_bytea',"
    " 'lo_put', 'lo_open', 'lowrite', 'lo_unlink')",
    "guest-functions": "SELECT NOT bool_or(has_function_privilege('public', p.oid, 'EXECUTE')) FROM pg_proc p"
    " WHERE p.pronamespace = 'pg_catalog'::regnamespace AND (p.proname LIKE 'pg%advisory%lock%' OR p.proname IN"
    " ('pg_logical_emit_message', 'pg_notify', 'pg_export_snapshot', 'pg_current_xact_id', 'txid_current'))",
    "prepared-transactions": "SELECT current_setting('max_prepared_transactions')::int = 0",
    "server-settings": "SELECT current_setting('reserved_connections')::int > 0"
    " AND (SELECT setting::bigint >= 0 FROM pg_settings WHERE name = 'temp_file_limit')"
    " AND (SELECT bool_and(setting::bigint <= 65536) FROM pg_settings"
    " WHERE name = 'max_notify_queue_pages') IS NOT FALSE",
    "registrar-rights": "SELECT has_database_privilege(oid, current_database(), 'CONNECT WITH GRANT OPTION')"
    " FROM pg_roles WHERE rolname = 'guestkey_registrar'",
    "slices": "SELECT pg_get_userbyid(nspowner) = 'guestkey_registrar' FROM pg_namespace WHERE nspname = 'slices'",
    "slices-private": "SELECT pg_get_userbyid(nspowner) = 'guestkey_registrar' FROM pg_namespace"
    " WHERE nspname = 'slices_private'",
    "minter-rights": "SELECT has_database_privilege(oid, current_database(), 'CONNECT')"
    " AND rolconfig @> ARRAY['createrole_self_grant=inherit', 'lock_timeout=2s']"
    " FROM pg_roles WHERE rolname = 'guestkey_minter'",
    "watch-rights": "SELECT has_database_privilege(oid, current_database(), 'CONNECT')"
    " FROM pg_roles WHERE rolname = 'guestkey_watch'",
    "reaper": "SELECT NOT rolcanlogin AND NOT rolsuper FROM pg_roles WHERE rolname = 'guestkey_reaper'",
    "reaper-rights": "SELECT pg_has_role(oid, 'pg_signal_backend', 'USAGE') FROM pg_roles"
    " WHERE rolname = 'guestkey_reaper'",
    "operations": "SELECT true FROM pg_namespace WHERE nspname = 'guestkey_ops'",
    "operations-rights": "SELECT has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_roles r, pg_namespace n"
    " WHERE rolname = 'guestkey_watch' AND nspname = 'guestkey_ops'",
    "functions-rights": "SELECT count(*) = 8 AND bool_and(has_function_privilege('guestkey_watch', p.oid, 'EXECUTE')"
    " AND NOT has_function_privilege('public', p.oid, 'EXECUTE') AND pg_get_userbyid(p.proowner) = CASE p.proname"
    " WHEN 'end_sessions' THEN 'guestkey_reaper' WHEN 'signal_sessions' THEN 'guestkey_reaper'"
    " WHEN 'end_blockers' THEN 'guestkey_reaper' ELSE 'guestkey_minter' END)"
    " FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'guestkey_ops'"
    " AND p.prorettype <> 'event_trigger'::regtype AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'guestkey_watch')",
    "reserved-connections": "SELECT bool_and(pg_has_role(r.oid, 'pg_use_reserved_connections', 'USAGE'))"
    " AND count(*) = 2 FROM pg_roles r WHERE rolname IN ('guestkey_watch', 'guestkey_minter')",
    "temp-files": "SELECT has_parameter_privilege(oid, 'temp_file_limit', 'SET')"
    " FROM pg_roles WHERE rolname = 'guestkey_minter'",
    "server-log": "SELECT has_parameter_privilege(oid, 'log_min_messages', 'SET')"
    " AND has_parameter_privilege(oid, 'log_min_error_statement', 'SET')"
    " FROM pg_roles WHERE rolname = 'guestkey_minter'",
    "guest-definitions": "SELECT evtenabled IN ('O', 'A') FROM pg_event_trigger"
    " WHERE evtname = 'guestkey_refuse_definitions' AND evtevent = 'ddl_command_start' AND evttags IS NULL",
}
_FUNCTIONS = """SELECT p.proname, p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = 'guestkey_ops' AND p.prosecdef AND p.proconfig = ARRAY['search_path=pg_catalog, pg_temp']"""
_WHAT: Mapping[str, str] = {
    "database": "Nobody enters this database by default",
    "other-databases": "Nobody enters other databases of this server by default",
    "public-schema": "No schema is open to everybody",
    "large-objects": "Nobody stores large objects by default",
    "guest-functions": "Nobody fills the lock table, the WAL or the queue of notifications by default",
    "prepared-transactions": "Nobody can leave locks behind without a session",
    "server-settings": "The server keeps connections for Guestkey and bounds temporary files and notifications",
    "registrar": "The registrar's login exists: it makes the slices' views",
    "registrar-rights": "The registrar may let slices' roles into this database",
    "slices": "A schema for the slices' views exists",
    "slices-private": "A schema for what stands behind the views, which guests cannot list, exists",
    "minter": "The minter's login exists: OpenBao makes guests' users with it",
    "minter-rights": "The minter may enter and take away what it made",
    "watch": "The watch's login exists: it confirms that users are gone",
    "watch-rights": "The watch may enter this database",
    "reaper": "The reaper's role exists: it owns the function that ends sessions",
    "reaper-rights": "The reaper may end sessions",
    "operations": "A schema for the watch's functions exists",
    "operations-rights": "The watch may use that schema",
    "functions": "The watch's functions are there, unchanged",
    "functions-rights": "Only the watch may call them",
    "reserved-connections": "Watch and minter get in when guests hold all other connections",
    "temp-files": "Guests' temporary files are bounded",
    "server-log": "Guests write nothing into the server's log",
    "guest-definitions": "Guests define nothing here, default rights included",
}
# A managed service may not let anybody do these; what is left open is said.
ADVISED = frozenset({"slices-private", "large-objects", "server-settings", "reserved-connections", "temp-files"})
ADVISED |= {"guest-definitions"}
# Named with --leave-open where a service lets nobody take them away from everybody.
FUNCTIONS = "functions"
# Where guests' statements are wanted in the server's log, or a service lets nobody give this right.
SERVER_LOG = "server-log"


@dataclass(frozen=True, slots=True)
class Item:
    """One part, whether it is there, and what to run where it is not. `needed` says if connecting waits for it."""

    part: str
    what: str
    ok: bool
    needed: bool
    sql: str


def check(session: Session, passwords: Passwords, *, left_open: frozenset[str] = frozenset()) -> list[Item]:
    """Look at every part. Passwords of logins that are missing are made on the way, for the SQL that makes them."""
    scripts = _scripts(session.info.dbname)
    return [_item(part, _mend(session, part, scripts[part], passwords, left_open)) for part in _WHAT]


def whole(dbname: str, passwords: Passwords) -> list[Item]:
    """Every part as if nothing were there: for when no login can look yet."""
    scripts = _scripts(dbname)
    return [_item(part, _filled(scripts[part], passwords)) for part in _WHAT]


def _item(part: str, mend: str) -> Item:
    return Item(part, _WHAT[part], ok=not mend, needed=part not in ADVISED, sql=mend)


def new_password(login: str, passwords: Passwords) -> str:
    """The SQL that gives a login the password of the operator's folder."""
    role = sql.Identifier(f"guestkey_{login}")
    return sql.SQL("ALTER ROLE {} PASSWORD {};").format(role, sql.Literal(passwords.verifier(login))).as_string()


def as_script(items: list[Item]) -> str:
    """What is missing, as one script for the database's administrator; "" for nothing."""
    if all(item.ok for item in items):
        return ""
    lines = ["-- To be run in this very database by its owner or a superuser, with psql for one.", "BEGIN;"]
    # Else whoever is no superuser could not give what it makes to the logins it makes.
    lines += ["SET LOCAL createrole_self_grant = 'set, inherit';"]
    for item in items:
        if not item.ok:
            lines += [f"-- {item.what}.", item.sql]
    return "\n".join([*lines, "COMMIT;"])


def _mend(session: Session, part: str, script: str, passwords: Passwords, left_open: frozenset[str]) -> str:
    """The SQL that mends a part; empty if it is well."""
    if part == "other-databases":
        names = [name for name in _names(session, _OTHER_DATABASES) if name not in left_open]
        return _revokes("DATABASE", names)
    if {"guest-functions": FUNCTIONS, "server-log": SERVER_LOG}.get(part) in left_open:
        return ""
    if part == "public-schema":
        return _revokes("SCHEMA", _names(session, _SCHEMAS))
    if part in LOGINS:
        return _mend_login(session, part, script, passwords)
    if part == "functions":
        bodies = {name: body.strip() for name, body in session.execute(_FUNCTIONS).fetchall()}
        return "" if bodies == _bodies(script) else script
    found = session.execute(_CHECKS[part]).fetchone()
    return "" if found and found[0] is True else script


def _mend_login(session: Session, login: str, script: str, passwords: Passwords) -> str:
    role = f"guestkey_{login}"
    found = session.execute(_ROLE, {"role": role, "creates": login != "watch"}).fetchone()
    if found is None:
        return _filled(script, passwords)
    if found[0] is True:
        return ""
    memberships = session.execute(
        "SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid"
        " WHERE m.member = %s::regrole AND (g.rolsuper OR starts_with(g.rolname, 'pg_'))"
        " AND g.rolname <> 'pg_use_reserved_connections'",
        (role,),
    ).fetchall()
    revoked = [
        sql.SQL("REVOKE {} FROM {};").format(sql.Identifier(name), sql.Identifier(role)).as_string()
        for (name,) in memberships
    ]
    return "\n".join([f"ALTER ROLE {role} {_ATTRIBUTES[login]};", *revoked])


def _names(session: Session, query: str) -> list[str]:
    return [str(name) for (name,) in session.execute(query).fetchall()]


def _revokes(kind: str, names: list[str]) -> str:
    revokes = [
        sql.SQL("REVOKE ALL ON {} {} FROM PUBLIC;").format(sql.SQL(kind), sql.Identifier(name)).as_string()
        for name in names
    ]
    if revokes:
        revokes.insert(0, "-- Roles of your own that relied on this need it granted by name.")
    return "\n".join(revokes)


def _scripts(dbname: str) -> dict[str, str]:
    """The parts of the script, for the database of this name."""
    text = (files("broker.kinds.postgres") / "data_database.sql").read_text()
    pieces = _PART.split(text)[1:]
    named = f"DATABASE {sql.Identifier(dbname).as_string()}"
    return {
        part: body.strip().replace("DATABASE data", named) for part, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _filled(script: str, passwords: Passwords) -> str:
    for login in (login for login in LOGINS if f"{{{login}}}" in script):
        script = script.replace(f"{{{login}}}", sql.Literal(passwords.verifier(login)).as_string())
    return script


def _bodies(script: str) -> dict[str, str]:
    """The bodies of the functions a script makes, by name."""
    found = re.findall(r"FUNCTION guestkey_ops\.(\w+)\(.*?\$\$(.*?)\$\$", script, re.DOTALL)
    return {name: body.strip() for name, body in found}
