"""Slices in PostgreSQL: registering them there and in OpenBao with the setup identity, and looking at them again.

OpenBao makes, lengthens and ends guests' users by the SQL that it is given here, each list in one transaction of the
minter's, on a connection it keeps: what is set there is set LOCAL. A view goes on showing the table and columns it was
made of, whatever has their names by now: what lies behind a slice is looked at by what PostgreSQL identifies it with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import sql

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import Vault
from broker.kinds.names import short
from broker.kinds.postgres import settings_dependence, views
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.sessions import Session, answering, registrar_session
from broker.kinds.tables.database_user import LIFETIMES, MADE, delete_role, write_role

CONNECTION_LIMIT = 3
STATEMENT_TIMEOUT = "60s"
IDLE_TRANSACTION_TIMEOUT = "5min"
TEMP_FILES_MEGABYTES = 1024

# Stored rows are compressed, and rows are added after a slice was made.
_TEMP_FACTOR = 4
_BYTES = """
    SELECT CASE WHEN c.relkind = 'p' THEN (SELECT sum(pg_table_size(relid)) FROM pg_partition_tree(c.oid))
                WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid)
                ELSE pg_database_size(current_database()) END::bigint
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = %s
"""

# SET FALSE: a guest cannot SET ROLE to the slice's role and so outlive its own.
_CREATION = (
    "SET LOCAL lock_timeout = '2s';",
    """CREATE ROLE "{{{{name}}}}" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS """
    """CONNECTION LIMIT {limit} PASSWORD '{{{{password}}}}' VALID UNTIL '{{{{expiration}}}}';""",
    """GRANT {group} TO "{{{{name}}}}" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE;""",
    """ALTER ROLE "{{{{name}}}}" SET statement_timeout = '{timeout}';""",
    # So that psql's \d, and whoever leaves out the schema, finds the view.
    """ALTER ROLE "{{{{name}}}}" SET search_path = slices;""",
    """ALTER ROLE "{{{{name}}}}" SET idle_in_transaction_session_timeout = '{idle}';""",
    # Only a superuser may let the minter set this one, and no guest can change it.
    """DO $$ BEGIN ALTER ROLE "{{{{name}}}}" SET temp_file_limit = '{temp}'; """
    """EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;""",
    # Nor these: whatever a guest does, and however long its errors are, the server's log stays as it is. FATAL carries
    # texts of a guest's, too.
    """DO $$ BEGIN ALTER ROLE "{{{{name}}}}" SET log_min_messages = 'panic'; """
    """ALTER ROLE "{{{{name}}}}" SET log_min_error_statement = 'panic'; """
    """EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;""",
)
_RENEWAL = ("SET LOCAL lock_timeout = '2s';", """ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}';""")
# First what no guest can lock, by itself: the slice, and with it the right to log in.
_REVOKE_RIGHTS = """DO $$ DECLARE held name; BEGIN
  PERFORM set_config('lock_timeout', '300ms', true);
  PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
  FOR held IN SELECT g.rolname FROM pg_auth_members m
                JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
               WHERE r.rolname = '{{name}}' AND starts_with(g.rolname, 'gks_')
  LOOP
    EXECUTE format('REVOKE %I FROM %I', held, '{{name}}');
  END LOOP;
EXCEPTION WHEN lock_not_available THEN
  NULL;
END $$;"""
# A guest may hold its own row locked, and lock it again in its next session: sessions end first, we wait a little in
# the queue for the row, and begin again. Whatever it is, nothing here waits long enough to hold up OpenBao.
_CLOSE_DOOR = """DO $$ BEGIN
  PERFORM set_config('lock_timeout', '300ms', true);
  FOR attempt IN 1..4 LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') THEN RETURN; END IF;
    PERFORM pg_stat_clear_snapshot();
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}';
    BEGIN
      ALTER ROLE "{{name}}" NOLOGIN;
      RETURN;
    EXCEPTION WHEN lock_not_available OR internal_error THEN
      IF attempt = 4 THEN RAISE; END IF;
    END;
  END LOOP;
END $$;"""
# The COMMIT is the point: with NOLOGIN uncommitted, a holder that reconnects in a loop survives its own role.
_REVOCATION = (
    _REVOKE_RIGHTS,
    "COMMIT;",
    "BEGIN;",
    _CLOSE_DOOR,
    "COMMIT;",
    # Only where there is somebody to wait for: what the broker has ended by hand costs no pause.
    "SELECT pg_sleep(0.1) FROM pg_roles WHERE rolname = '{{name}}';",
    """SELECT pg_terminate_backend(pid, 500) FROM pg_stat_activity WHERE usename = '{{name}}';""",
    "BEGIN;",
    "SET LOCAL lock_timeout = '500ms';",
    """DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{{name}}') """
    """THEN DROP OWNED BY "{{name}}"; DROP ROLE "{{name}}"; END IF; END $$;""",
)


# Another version's are told by it: those of slices registered before are then replaced.
_VERSION = (_CREATION, _RENEWAL, _REVOCATION, CONNECTION_LIMIT, TEMP_FILES_MEGABYTES)
STATEMENTS = sha256(repr(_VERSION).encode()).hexdigest()[:12]


def role_definition(connection: str, group: str, temp_megabytes: int = TEMP_FILES_MEGABYTES) -> dict[str, Any]:
    """How OpenBao makes, lengthens and ends users that are members of a group.

    Args:
        temp_megabytes: how much of the server's disk the temporary files of one session may take, in MB.
    """
    values = {
        "group": group,
        "limit": CONNECTION_LIMIT,
        "timeout": STATEMENT_TIMEOUT,
        "idle": IDLE_TRANSACTION_TIMEOUT,
        "temp": f"{temp_megabytes}MB",
    }
    return {
        "db_name": connection,
        "creation_statements": [part.format(**values) for part in _CREATION],
        "renew_statements": list(_RENEWAL),
        "revocation_statements": list(_REVOCATION),
        "rollback_statements": list(_REVOCATION),
        **LIFETIMES,
    }


log = structlog.get_logger(__name__)
T = TypeVar("T")
_PROBE = "gks_probe"
# As many may be registering or unregistering at the same moment.
_OTHERS = 8
_TEMP_MEGABYTES_UNKNOWN = 64 * 1024

# Literals are read beforehand: this is for what only PostgreSQL knows, such as a year that its dates do not reach.
_MISMATCHES = (psycopg.errors.DataError, psycopg.errors.UndefinedFunction, psycopg.errors.DatatypeMismatch)


def register(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> int | None:
    """See `Kind.register`: role and view in PostgreSQL, and the database role and policy in OpenBao."""
    binding, group = PostgresBinding.parse(raw_binding), _group_of(slice_id)

    def make(session: Session) -> int | None:
        _make_group(session, group)
        return views.make(session, slice_id, binding, sql.Identifier(group))

    rows = _as_registrar(vault, binding.connection, slice_id, make)
    _lend(vault, slice_id, binding, _temp_megabytes(vault, slice_id, binding))
    return rows


def lend_again(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """Give OpenBao today's statements for a slice that was registered earlier; nothing in PostgreSQL changes.

    Users that live are ended by them, too: OpenBao reads a role's statements when it ends a lease.
    """
    binding = PostgresBinding.parse(raw_binding)
    try:
        temp_megabytes = _temp_megabytes(vault, slice_id, binding)
    except (BackendDown, Invalid):
        # How guests are ended must not wait for a database that is away; what they may spill is bounded loosely then.
        temp_megabytes = _TEMP_MEGABYTES_UNKNOWN
    _lend(vault, slice_id, binding, temp_megabytes)


def _group_of(slice_id: str) -> str:
    return f"gks_{short(slice_id)}"


def _temp_megabytes(vault: Vault, slice_id: str, binding: PostgresBinding) -> int:
    """How large the temporary files of a guest's session may become, in MB: room for the slice, and for sorting it.

    Rows behind a function pass through a temporary file. Of a view or a foreign table the size is not known: the
    database's counts.
    """

    def measured(session: Session) -> int:
        row = session.execute(_BYTES, (binding.schema, binding.table)).fetchone()
        return int(row[0] or 0) if row else 0

    size = _as_registrar(vault, binding.connection, slice_id, measured)
    return TEMP_FILES_MEGABYTES + _TEMP_FACTOR * size // 2**20


def _lend(vault: Vault, slice_id: str, binding: PostgresBinding, temp_megabytes: int) -> None:
    write_role(vault, slice_id, role_definition(binding.connection, _group_of(slice_id), temp_megabytes))


def unregister(vault: Vault, slice_id: str, raw_binding: Mapping[str, Any]) -> None:
    """See `Kind.unregister`. Its leases must have ended: OpenBao ends them by the statements of the database role."""
    binding = PostgresBinding.parse(raw_binding)
    delete_role(vault, slice_id)

    def drop(session: Session) -> None:
        views.drop(session, slice_id)
        _drop_group(session, _group_of(slice_id))

    _as_registrar(vault, binding.connection, slice_id, drop)


@contextmanager
def probe_group(vault: Vault, connection_name: str) -> Iterator[str]:
    """A group like a slice's that sees nothing, for as long as the block runs. Yields its name.

    Raises:
        BackendDown: PostgreSQL does not answer, or does not let the registrar do what registering needs.
    """
    _as_registrar(vault, connection_name, "probe", lambda session: _make_group(session, _PROBE))
    try:
        yield _PROBE
    finally:
        _as_registrar(vault, connection_name, "probe", lambda session: _drop_group(session, _PROBE))


def _as_registrar(vault: Vault, connection_name: str, slice_id: str, work: Callable[[Session], T]) -> T:
    """One transaction of the registrar; what PostgreSQL says against it becomes an error of ours."""
    # Another worker at the same slice, or a database that went away: the next round finds out.
    with answering("slice.not_changed", slice=slice_id):
        try:
            with registrar_session(vault, connection_name, as_server_writes=True) as session:
                return _despite_others(session, work)
        except _MISMATCHES as error:
            raise Invalid(
                "A row filter compares a column with a literal of another type.", field="/binding/rows"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            # Waiting does not mend it; only the administrator of that database does.
            reason = error.diag.message_primary or "a right is missing"
            raise Invalid(
                f"The database refuses the registrar: {reason}.",
                field="/binding/table",
                advice="The operator runs `guestkey connect-backend postgres --check`: it prints what to grant.",
            ) from error


def _despite_others(session: Session, work: Callable[[Session], T]) -> T:
    """Run the transaction again where another one changed the rights of the same schema or database meanwhile.

    PostgreSQL makes neither wait for such a row of its catalogue: who comes second is refused once the first is done.
    """
    for _ in range(_OTHERS):
        try:
            with session.transaction():
                return work(session)
        except psycopg.errors.InternalError_ as error:
            log.info("slice.changed_beside_another", error=str(error))
    with session.transaction():
        return work(session)


def _make_group(session: Session, group_name: str) -> None:
    group = sql.Identifier(group_name)
    if not session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (group_name,)).fetchone():
        session.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(group))
    database = sql.Identifier(session.info.dbname)
    session.execute(sql.SQL("GRANT USAGE ON SCHEMA slices TO {}").format(group))
    session.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, group))
    lent = sql.SQL("GRANT {} TO guestkey_minter WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    session.execute(lent.format(group))


def _drop_group(session: Session, group_name: str) -> None:
    group = sql.Identifier(group_name)
    if session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (group_name,)).fetchone():
        # Who made a role may administer it, but owns nothing of it until it says so.
        session.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE").format(group))
        session.execute(sql.SQL("DROP OWNED BY {}").format(group))
        session.execute(sql.SQL("DROP ROLE {}").format(group))


# `definition`: of a view or materialised view its query, of a foreign table its options, of any its row policies.
_TABLES = """
  SELECT a.slice, c.oid::bigint,
         md5(concat_ws('|', c.relkind, c.relrowsecurity, c.relforcerowsecurity,
             CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
             (SELECT array_to_string(f.ftoptions, ',') FROM pg_foreign_table f WHERE f.ftrelid = c.oid),
             (SELECT string_agg(concat_ws(',', p.polname, p.polcmd, p.polpermissive, p.polroles,
                     pg_get_expr(p.polqual, p.polrelid)), ';' ORDER BY p.polname)
                FROM pg_policy p WHERE p.polrelid = c.oid))),
         (SELECT jsonb_object_agg(t.attname, jsonb_build_array(t.attnum, format_type(t.atttypid, t.atttypmod),
                 CASE WHEN t.attgenerated <> '' THEN md5(pg_get_expr(d.adbin, d.adrelid)) ELSE '' END))
            FROM pg_attribute t LEFT JOIN pg_attrdef d ON d.adrelid = t.attrelid AND d.adnum = t.attnum
           WHERE t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped)
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS a (slice, schema, name)
    JOIN pg_namespace n ON n.nspname = a.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = a.name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# Which columns of which tables a slice's view, or the function behind it, really reads.
_READS = """
  SELECT a.slice, array_agg(DISTINCT d.refobjid || '.' || d.refobjsubid ORDER BY d.refobjid || '.' || d.refobjsubid)
    FROM unnest(%s::text[]) AS a (slice)
    JOIN (SELECT substr(v.relname, 3) AS short, 'pg_rewrite'::regclass AS class, w.oid
            FROM pg_class v JOIN pg_rewrite w ON w.ev_class = v.oid
           WHERE v.relnamespace = 'slices'::regnamespace AND v.relkind = 'v'
          UNION ALL
          SELECT substr(p.proname, 3), 'pg_proc'::regclass, p.oid
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE n.nspname IN ('slices', 'slices_private')) AS made ON made.short = a.slice
    JOIN pg_depend d ON d.classid = made.class AND d.objid = made.oid
     AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    JOIN pg_class c ON c.oid = d.refobjid
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname NOT IN ('slices', 'slices_private')
   GROUP BY a.slice
"""


def look(
    setup: Vault, connection_name: str, slices: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any] | None]:
    """What lies behind each slice now: see `Kind.inspect_sources`."""
    bindings = {id_: PostgresBinding.parse(binding) for id_, binding in slices.items()}
    by_short = {short(id_): id_ for id_ in bindings}
    asked = [
        list(by_short),
        *([getattr(bindings[id_], part) for id_ in by_short.values()] for part in ("schema", "table")),
    ]
    failed = answering("slices.not_looked_at", connection=connection_name)
    with failed, registrar_session(setup, connection_name) as session, session.transaction():
        # One snapshot for both questions.
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tables = session.execute(_TABLES, asked).fetchall()
        reads: dict[str, list[str]] = dict(session.execute(_READS, asked[:1]).fetchall())
        behind = {name: (table, bindings[by_short[name]].fast) for name, table, *_ in tables}
        follows = settings_dependence.find(session, behind)
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(bindings)
    for name, table, definition, columns in tables:
        found[by_short[name]] = {
            "made": MADE,
            "table": table,
            "definition": definition,
            "columns": {column: columns[column] for column in sorted(bindings[by_short[name]].named & columns.keys())},
            "reads": reads.get(name, []),
            "follows": follows[name].why,
            "marked": sorted(follows[name].marked),
        }
    return found
