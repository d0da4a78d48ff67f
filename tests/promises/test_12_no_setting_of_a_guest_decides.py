"""Promise 12: whatever a guest sets in its session, a PostgreSQL slice shows the same rows and values."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from broker.base.errors import Invalid
from broker.base.ids import new_id
from broker.keystore.vault import Vault
from broker.kinds.postgres.sessions import view_of
from broker.kinds.postgres.settings_dependence import MARK
from broker.kinds.postgres.slices import register, unregister
from broker.kinds.postgres.views import PINNED
from broker.leases.issuing import Handed
from broker.models import Dataset, Slice
from broker.runtime.parts import vault_of
from broker.worker import slice_registration
from tests.support.world import CLINIC, World

Session = psycopg.Connection[tuple[Any, ...]]
# Parameters a user may set that change how fast a query runs or what a session may spend, and no row.
COSTS = re.compile("Query Tuning|Resource Usage|Connections and Authentication|Vacuuming|Write-Ahead Log|Replication")
# And those of other categories, each with why it is left alone.
HARMLESS = {
    "application_name": "read by functions that are refused",
    "backslash_quote": "refuses a literal or not",
    "check_function_bodies": "when a function is made",
    "client_encoding": "how texts are sent to the client",
    "createrole_self_grant": "when a role is made",
    "debug_logical_replication_streaming": "of a replica",
    "debug_parallel_query": "the plan",
    "debug_pretty_print": "the form of what is not printed",
    "default_table_access_method": "when a table is made",
    "default_tablespace": "when a table is made",
    "default_toast_compression": "when a row is written",
    "default_transaction_deferrable": "when the snapshot is taken",
    "default_transaction_isolation": "when the snapshot is taken",
    "default_transaction_read_only": "writing",
    "escape_string_warning": "a warning",
    "exit_on_error": "ends the session",
    "file_copy_method": "when a database is made",
    "gin_pending_list_limit": "when a row is written",
    "icu_validation_level": "when a collation is made",
    "idle_in_transaction_session_timeout": "ends the session",
    "idle_session_timeout": "ends the session",
    "jit_expressions": "the plan",
    "jit_tuple_deforming": "the plan",
    "local_preload_libraries": "of the server's folder for everybody, when a session begins",
    "lock_timeout": "ends the statement",
    "log_parameter_max_length_on_error": "the guest's own parameters",
    "restrict_nonsystem_relation_kind": "refuses the query",
    "statement_timeout": "ends the statement",
    "stats_fetch_consistency": "of statistics, whose functions are refused",
    "synchronize_seqscans": "the order of rows",
    "temp_tablespaces": "where temporary files lie",
    "trace_notify": "the guest's own notifications",
    "transaction_deferrable": "when the snapshot is taken",
    "transaction_isolation": "when the snapshot is taken",
    "transaction_read_only": "writing",
    "transaction_timeout": "ends the session",
}
_TABLES = """
    DROP TABLE IF EXISTS clinic.tenants CASCADE; DROP SCHEMA IF EXISTS followed CASCADE;
    CREATE TABLE clinic.tenants
      (id int PRIMARY KEY, tenant text, at timestamptz, share float8, note text, lasts interval);
    INSERT INTO clinic.tenants SELECT n, CASE n % 2 WHEN 0 THEN 'acme' ELSE 'other' END,
      '2026-01-31 23:30Z'::timestamptz + n * interval '20 min', n / 3.0, 'the foxes run ' || n, n * interval '-25 h'
      FROM generate_series(1, 40) n;
    GRANT SELECT ON clinic.tenants TO guestkey_registrar;
    CREATE SCHEMA followed; GRANT USAGE ON SCHEMA followed TO guestkey_registrar;
    CREATE FUNCTION followed.tenant() RETURNS text LANGUAGE sql STABLE
      AS $$SELECT current_setting('app.tenant', true)$$;
    CREATE FUNCTION followed.lying() RETURNS text LANGUAGE plpgsql IMMUTABLE
      AS $$BEGIN RETURN current_setting('app.tenant', true); END$$;
    CREATE FUNCTION followed.hiding() RETURNS text LANGUAGE sql IMMUTABLE
      BEGIN ATOMIC SELECT current_setting('app.tenant', true); END;
    CREATE FUNCTION followed.same(text, text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 = $2';
    CREATE OPERATOR followed.=== (FUNCTION = followed.same, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION followed.longer(text, text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $2';
    CREATE AGGREGATE followed.most(text) (SFUNC = followed.longer, STYPE = text);
    CREATE FUNCTION followed.first() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'acme'$$;
"""
# Views that a guest could turn, and what is said of them. {t} is the table.
REFUSED = {
    "custom parameter": ("SELECT id FROM {t} WHERE tenant = current_setting('app.tenant', true)", "current_setting"),
    "built-in parameter": ("SELECT id, current_setting('TimeZone') AS note FROM {t}", "current_setting"),
    "set_config": ("SELECT id FROM {t} WHERE tenant = set_config('a.b', 'acme', false)", "set_config"),
    "pg_settings": ("SELECT id FROM {t} JOIN pg_settings s ON s.setting = tenant", "pg_catalog.pg_settings"),
    "pg_stat_activity": ("SELECT id FROM {t} JOIN pg_stat_activity a ON application_name = tenant", "pg_stat_activity"),
    "pg_roles": ("SELECT id FROM {t} JOIN pg_roles r ON tenant = ANY (rolconfig)", "pg_roles"),
    "information_schema": ("SELECT id FROM {t}, information_schema.enabled_roles", "information_schema"),
    "address": ("SELECT id FROM {t} WHERE id = inet_client_port() % 40", "inet_client_port"),
    "session": ("SELECT id FROM {t} WHERE id = pg_backend_pid() % 40", "pg_backend_pid"),
    "seed": ("SELECT id, share + random() AS share FROM {t}", "random"),
    "query in a text": ("SELECT id, query_to_xml('SELECT 1', true, true, '') AS note FROM {t}", "query_to_xml"),
    "own statement": ("SELECT id FROM {t} WHERE current_query() LIKE '%' || tenant || '%'", "current_query"),
    "function": ("SELECT id FROM {t} WHERE tenant = followed.tenant()", "followed.tenant, which is not IMMUTABLE"),
    "function that lies": ("SELECT id FROM {t} WHERE tenant = followed.lying()", "followed.lying"),
    "within a function": ("SELECT id FROM {t} WHERE tenant = followed.hiding()", "function followed.hiding calls"),
    "operator": ("SELECT id FROM {t} WHERE tenant OPERATOR(followed.===) 'acme'", "followed.same"),
    "aggregate": ("SELECT max(id) AS id, followed.most(tenant) AS note FROM {t}", "followed.longer"),
    "subquery": ("SELECT id FROM {t} WHERE id IN (SELECT current_setting('a.b')::int)", "current_setting"),
    "column": (
        "SELECT id, CASE WHEN current_setting('a.b', true) = '1' THEN note END AS note FROM {t}",
        "current_sett",
    ),
    "lateral": ("SELECT id FROM {t}, LATERAL (SELECT 1 WHERE followed.tenant() = tenant) x", "followed.tenant"),
}
# Views that follow the session in what the slice's function holds, and in nothing else.
ALLOWED = {
    "constant": "SELECT id FROM {t} WHERE tenant = 'acme' AND upper(note) <> ''",
    "clock": "SELECT id FROM {t} WHERE at < now()",
    "IMMUTABLE function": "SELECT id FROM {t} WHERE tenant = followed.first()",
    "names that look like nodes": """SELECT id, ':funcid 2077' AS ":funcid 2077 {{SQLVALUEFUNCTION :op 0" FROM {t}""",
}
FORMATTED = {
    "day": "SELECT id FROM {t} WHERE at::date = '2026-02-01'",
    "today": "SELECT id FROM {t} WHERE at::date < CURRENT_DATE",
    "text of a date": "SELECT id, at::text AS note FROM {t}",
    "read from a text": "SELECT id FROM {t} WHERE at < ('01/02/' || '2026')::timestamptz",
    "json": "SELECT id, json_build_object('at', at) AS note FROM {t}",
    "month": "SELECT id, to_char(at, 'TMMonth HH24') AS note FROM {t}",
}
# All of it as text, so that nothing is left to how a client is written to.
EVERYTHING = """
    SELECT id, at::text AS at, lasts::text AS lasts, share::text AS share, convert_to(note, 'UTF8')::text AS bytes,
           (at::date = '2026-02-01')::text AS day, to_char(id, 'L999D9') || to_char(at, 'TMMonth') AS locale,
           (to_tsvector(note) @@ to_tsquery('fox & run'))::text AS words, quote_ident(tenant) AS quoted,
           ('{1,NULL}'::text)::text[]::text AS nulls, json_build_object('at', at)::text AS json,
           ('01/02/' || '2026')::date::text AS read,
           ('2026-01-01 12:00 ' || 'IST')::timestamptz::text AS abbreviated
      FROM {t} WHERE at::date = '2026-02-01'
"""
SPOILERS = [
    "TimeZone = 'Pacific/Kiritimati'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "extra_float_digits = -10",
    "bytea_output = 'escape'",
    "default_text_search_config = 'english'",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "xmlbinary = 'hex'",
    "timezone_abbreviations = 'India'",
    "lc_time = 'POSIX'",
    "lc_numeric = 'POSIX'",
    "lc_monetary = 'POSIX'",
    "search_path = followed, clinic, public",
    "row_security = off",
    "standard_conforming_strings = off",
    "transform_null_equals = on",
    "gin_fuzzy_search_limit = 1",
    "xmloption = document",
    "app.tenant = 'other'",
]


@pytest.fixture
def setup(world: World) -> Vault:
    """OpenBao as the identity that registers slices."""
    with world.admin() as admin:
        admin.execute(_TABLES)
    return vault_of(world.settings, "setup")


def make_view(world: World, query: str, **names: str) -> dict[str, Any]:
    """A view of the tenants' table, and the binding of a slice that shows all its columns."""
    with world.admin() as admin:
        admin.execute("CREATE OR REPLACE VIEW followed.shown AS " + query.replace("{t}", "clinic.tenants"))
        admin.execute("GRANT SELECT ON followed.shown TO guestkey_registrar")
    return {**CLINIC, "schema": "followed", "table": "shown", "columns": ["id"]}


def hand(world: World, binding: dict[str, Any]) -> tuple[Dataset, Handed, str]:
    """A credential for a slice of that binding, and its view."""
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, slices={"deidentified": binding})
    world.grant(dataset, signed)
    return dataset, world.issue(signed, dataset), view_of(world.slice_id(dataset))


def test_every_user_parameter_is_pinned_or_harmless(world: World) -> None:
    with world.admin() as admin:
        found = admin.execute("SELECT name, category FROM pg_settings WHERE context = 'user'").fetchall()
    assert len(found) > 100
    undecided = {name for name, category in found if name not in HARMLESS and not COSTS.match(category)}
    assert undecided - PINNED - {"trace_sort"} == set(), "say of each whether it changes what is shown"
    assert not PINNED & HARMLESS.keys()


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("fast", [False, True])
def test_view_depending_on_session_settings_is_refused(world: World, setup: Vault, how: str, *, fast: bool) -> None:
    query, said = REFUSED[how]
    binding = make_view(world, query)
    with pytest.raises(Invalid, match=re.escape(said)) as refused:
        register(setup, new_id("sl"), binding | {"fast": fast})
    assert "guestkey_registrar" in refused.value.advice
    with world.admin() as admin:
        # Two levels down it is the same, also where the view between is read as whoever asks.
        admin.execute(
            "CREATE VIEW followed.above WITH (security_invoker = true) AS SELECT id FROM followed.shown;"
            " GRANT SELECT ON followed.above TO guestkey_registrar"
        )
    with pytest.raises(Invalid, match=re.escape(said)):
        register(setup, new_id("sl"), binding | {"table": "above", "fast": fast})


@pytest.mark.parametrize("how", [*ALLOWED, *FORMATTED])
def test_view_independent_of_session_settings_is_accepted(world: World, setup: Vault, how: str) -> None:
    binding, slice_id = make_view(world, ({**ALLOWED, **FORMATTED})[how]), new_id("sl")
    register(setup, slice_id, binding)
    unregister(setup, slice_id, binding)
    # Without the function nothing holds the session's formats.
    if how in FORMATTED:
        with pytest.raises(Invalid, match="without `fast`"):
            register(setup, slice_id, binding | {"fast": True})
    else:
        register(setup, slice_id, binding | {"fast": True})
        unregister(setup, slice_id, binding)


@pytest.mark.parametrize("fast", [False, True])
def test_only_row_policies_that_apply_to_the_registrar_are_checked(world: World, setup: Vault, *, fast: bool) -> None:
    follows = "USING (tenant = current_setting('app.tenant', true))"
    with world.admin() as admin:
        admin.execute("ALTER TABLE clinic.tenants ENABLE ROW LEVEL SECURITY")
        admin.execute(f"CREATE POLICY by_setting ON clinic.tenants {follows}")
    binding = CLINIC | {"table": "tenants", "columns": ["id"], "fast": fast}
    with pytest.raises(Invalid, match=r"policy by_setting of clinic\.tenants calls current_setting"):
        register(setup, new_id("sl"), binding)
    with world.admin() as admin:
        admin.execute("ALTER POLICY by_setting ON clinic.tenants TO guestkey_watch")
        admin.execute("CREATE POLICY by_name ON clinic.tenants TO guestkey_registrar USING (tenant = 'acme')")
    slice_id = new_id("sl")
    register(setup, slice_id, binding)
    with world.admin() as admin:
        assert admin.execute(f"SELECT count(*) FROM {view_of(slice_id)}").fetchone() == (20,)
    unregister(setup, slice_id, binding)


def test_session_settings_change_no_row_or_value(world: World, setup: Vault) -> None:
    binding = make_view(world, EVERYTHING)
    with world.admin() as admin:
        found = admin.execute("SELECT attname FROM pg_attribute WHERE attrelid = 'followed.shown'::regclass")
        binding["columns"] = sorted(name for (name,) in found)
    _, handed, view = hand(world, binding)
    shown: list[object] = []
    for spoiler in ["app.x = ''", *SPOILERS]:
        with world.connect(handed) as session:
            session.execute(f"SET {spoiler}")
            shown.append(session.execute(f"SELECT * FROM {view} ORDER BY id").fetchall())
    assert shown[0], "a view without rows would prove nothing"
    for spoiler, rows in zip(SPOILERS, shown[1:], strict=True):
        assert rows == shown[0], spoiler
    with world.admin() as admin:
        turned = 0
        for spoiler in SPOILERS:
            admin.execute(f"SET {spoiler}")
            try:
                turned += admin.execute("SELECT * FROM followed.shown ORDER BY id").fetchall() != shown[0]
            except psycopg.Error:
                turned += 1
            admin.execute("RESET ALL")
    assert turned > 9, "the same settings do change the view itself"


def test_plans_of_hidden_parts_are_not_printed(world: World, setup: Vault) -> None:
    with world.admin() as admin:
        oid = admin.execute("SELECT 'clinic.tenants'::regclass::oid::bigint").fetchone()
    assert oid
    binding = CLINIC | {"table": "tenants", "columns": ["id"], "rows": [["tenant", "=", "acme"]]}
    _, handed, view = hand(world, binding)
    with world.connect(handed) as session:
        said: list[str] = []
        session.add_notice_handler(lambda diag: said.append(f"{diag.message_primary}{diag.message_detail}"))
        session.execute("SET client_min_messages = log; SET debug_print_plan = on; SET debug_print_parse = on")
        session.execute("SET debug_print_rewritten = on; SET trace_sort = on")
        assert session.execute(f"SELECT count(*) FROM {view}").fetchone() == (20,)
    printed = "\n".join(said)
    assert "PLANNEDSTMT" in printed, "the guest's own plan"
    assert f"relid {oid[0]} " not in printed and "SEQSCAN" not in printed and "INDEXSCAN" not in printed


@pytest.mark.parametrize("what", ["policy", "view", "view below", "function"])
def test_slice_that_starts_to_depend_on_a_setting_is_closed(world: World, setup: Vault, what: str) -> None:
    with world.admin() as admin:
        admin.execute(
            "CREATE VIEW followed.below AS SELECT id, tenant FROM clinic.tenants WHERE tenant = followed.first();"
            "CREATE VIEW followed.above AS SELECT id, tenant FROM followed.below;"
            "ALTER TABLE clinic.tenants ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY fixed ON clinic.tenants USING (tenant = 'acme');"
            "GRANT SELECT ON followed.above TO guestkey_registrar"
        )
    table = {"table": "tenants"} if what == "policy" else {"schema": "followed", "table": "above"}
    dataset, _, _ = hand(world, CLINIC | table | {"columns": ["id"]})
    slice_id = world.slice_id(dataset)
    slice_registration.recheck_slices(world.ender, setup)
    assert state(world, slice_id)[0] == "ready"
    follows = "current_setting('app.tenant', true)"
    changes = {
        "policy": f"ALTER POLICY fixed ON clinic.tenants USING (tenant = {follows})",
        "view": "CREATE OR REPLACE VIEW followed.above AS SELECT id, tenant FROM followed.below"
        f" WHERE id = {follows}::int",
        "view below": "CREATE OR REPLACE VIEW followed.below AS SELECT id, tenant FROM clinic.tenants"
        f" WHERE tenant = {follows}",
        "function": "ALTER FUNCTION followed.first() STABLE",
    }
    with world.admin() as admin:
        admin.execute(changes[what])
    slice_registration.recheck_slices(world.ender, setup)
    assert state(world, slice_id)[0] == "changed"
    with pytest.raises(Invalid, match=r"current_setting|followed\.first"):
        register(setup, slice_id, CLINIC | table | {"columns": ["id"]})


def test_unsafe_slice_of_an_earlier_version_is_closed_with_the_reason(world: World, setup: Vault) -> None:
    binding = make_view(world, "SELECT id FROM {t} WHERE tenant = 'acme'")
    dataset, _, _ = hand(world, binding)
    slice_id = world.slice_id(dataset)
    make_view(world, REFUSED["custom parameter"][0])
    with world.database.transaction() as tx:
        seen = dict(tx.get_one(Slice, slice_id).seen or {})
    now = vault_look(setup, slice_id, binding)
    world.change(Slice, slice_id, seen={**seen, "made": 1, "definition": now["definition"]})
    slice_registration.recheck_slices(world.ender, setup)
    closed, said = state(world, slice_id)
    assert closed == "changed" and "The view followed.shown calls current_setting" in said


def test_function_marked_safe_is_accepted_and_its_change_closes_the_slice(world: World, setup: Vault) -> None:
    with world.admin() as admin:
        admin.execute(
            "CREATE FUNCTION followed.vouched() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'acme'$$;"
            f"COMMENT ON FUNCTION followed.vouched() IS 'The tenant. {MARK}'"
        )
    binding = make_view(world, "SELECT id FROM {t} WHERE tenant = followed.vouched()")
    dataset, _, _ = hand(world, binding)
    slice_registration.recheck_slices(world.ender, setup)
    assert state(world, world.slice_id(dataset))[0] == "ready"
    with world.admin() as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION followed.vouched() RETURNS text LANGUAGE sql STABLE AS $$SELECT 'b'$$"
        )
    slice_registration.recheck_slices(world.ender, setup)
    closed, said = state(world, world.slice_id(dataset))
    assert closed == "changed" and "A function that decides" in said


def state(world: World, slice_id: str) -> tuple[str, str]:
    """A slice's state, and what is said of it."""
    with world.database.transaction() as tx:
        found = tx.get_one(Slice, slice_id)
        return found.state, found.state_detail


def vault_look(setup: Vault, slice_id: str, binding: dict[str, Any]) -> dict[str, Any]:
    """What lies behind a slice now."""
    from broker.kinds.postgres.slices import look

    return look(setup, "data", {slice_id: binding})[slice_id] or {}
