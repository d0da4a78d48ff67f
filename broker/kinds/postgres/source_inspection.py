"""Looking again at the tables behind slices, by what PostgreSQL identifies them with and never by name alone.

A view goes on showing the table and columns it was made of, whatever has their names by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import structlog

from broker.keystore.vault import Vault
from broker.kinds.names import short
from broker.kinds.postgres import settings_dependence as postgres_follows
from broker.kinds.postgres.binding import PostgresBinding
from broker.kinds.postgres.sessions import registrar_session, silent
from broker.kinds.tables.source_changes import MADE

log = structlog.get_logger(__name__)

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
    """What lies behind each slice now, by its id; None where no table has the name any more.

    Args:
        slices: the bindings of slices at this connection, by their ids.

    Raises:
        BackendDown: the database does not answer.
    """
    bindings = {id_: PostgresBinding.parse(binding) for id_, binding in slices.items()}
    by_short = {short(id_): id_ for id_ in bindings}
    asked = [
        list(by_short),
        *([getattr(bindings[id_], part) for id_ in by_short.values()] for part in ("schema", "table")),
    ]
    try:
        with registrar_session(setup, connection_name) as connection, connection.transaction():
            # One snapshot for both questions.
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            tables = connection.execute(_TABLES, asked).fetchall()
            reads = dict(connection.execute(_READS, asked[:1]).fetchall())
            behind = {name: (table, bindings[by_short[name]].fast) for name, table, *_ in tables}
            follows = postgres_follows.find(connection, behind)
    except psycopg.Error as error:
        log.warning("slices.not_looked_at", connection=connection_name, error=type(error).__name__)
        raise silent() from error
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


def reads_what_it_names(now: Mapping[str, Any]) -> bool:
    """Whether a slice's view reads the table and columns that have the names of its binding now."""
    expected: Sequence[str] = sorted(f"{now['table']}.{which}" for which, *_ in now["columns"].values())
    return sorted(now["reads"]) == expected
