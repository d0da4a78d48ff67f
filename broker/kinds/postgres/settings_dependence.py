"""What decides the rows of a view, or of a table with policies: does it follow anything that a guest may set?

A condition like `tenant = current_setting('app.tenant')` is an ordinary way to share a table between tenants, and lets
a guest choose the tenant. PostgreSQL's dependencies do not name its own functions, so the stored trees are read, down
through every view, policy and function below. See docs/decisions/0166-a-slice-follows-no-setting-of-a-guest.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from broker.kinds.postgres.sessions import Session

# Of a comment on a function, by its owner: whatever a guest sets, it answers the same.
MARK = "guestkey:same-for-every-guest"
ADVICE = (
    "Let the table's owner state the rows without it (policies for guestkey_registrar alone, a view of fixed rows), or"
    " use a row filter of the slice. docs/connect-postgres.md says more."
)
# Of PostgreSQL's own functions, the STABLE ones answer as the pinned parameters, the data or the clock have it, but for
# these: guests' sessions write what they show, or they run a query that is given as text.
_SESSIONS = re.compile(
    "current_setting|set_config|pg_.*|inet_(client|server)_.*|.*_to_xml.*|ts_stat|ts_rewrite|txid_.*|row_security_active"
)
_HARMLESS_STABLE = frozenset({"pg_has_role", "pg_typeof", "pg_column_size", "pg_collation_for", "pg_get_userbyid"})
_HARMLESS_VOLATILE = frozenset({"clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7"})
# Where no parameter can be pinned, only these of them: a moment is the same in every zone.
_MOMENTS = frozenset({"now", "transaction_timestamp", "statement_timestamp", "clock_timestamp"})
_SETTINGS_READ = re.compile(r"current_setting|set_config|pg_settings", re.IGNORECASE)
# Names and constants are written so that they cannot look like these.
_FUNCTION = re.compile(r":(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)")
_OPERATOR = re.compile(r":opno (\d+)")
_RELATION = re.compile(r":relid (\d+)")
# Dates, times and JSON written or read by the session's formats; CURRENT_DATE and its kin, but for who is logged in.
_FORMATTED = re.compile(r"\{(?:COERCEVIAIO|XMLEXPR|JSON\w*EXPR)\b|\{SQLVALUEFUNCTION :op (?:[0-8]|14)\b")

# Each relation with whom it is read as: what decides of its rows, and whom that reads the next as.
_RELATIONS = """
  WITH a AS (
    SELECT c.oid::bigint AS oid, of.reader, c.relkind, c.relowner::bigint AS owner, c.relrowsecurity, c.reloptions,
           c.relforcerowsecurity, format('%%I.%%I', n.nspname, c.relname) AS name,
           n.nspname IN ('pg_catalog', 'information_schema') AS system
      FROM unnest(%(oids)s::bigint[], %(readers)s::bigint[]) AS of (oid, reader)
      JOIN pg_class c ON c.oid = of.oid JOIN pg_namespace n ON n.oid = c.relnamespace)
  SELECT a.oid, a.reader, a.name, a.system, '', w.ev_action::text,
         CASE WHEN a.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1',
                'security_invoker=yes'] THEN a.reader ELSE a.owner END
    FROM a LEFT JOIN pg_rewrite w ON w.ev_class = a.oid AND w.ev_type = '1' AND a.relkind = 'v' AND NOT a.system
  UNION ALL
  SELECT a.oid, a.reader, a.name, false, p.polname, p.polqual::text, a.reader
    FROM a JOIN pg_roles r ON r.oid = a.reader AND NOT r.rolsuper AND NOT r.rolbypassrls
    JOIN pg_policy p ON p.polrelid = a.oid AND p.polcmd IN ('r', '*')
   WHERE a.relrowsecurity AND (a.relforcerowsecurity OR NOT pg_has_role(r.oid, a.owner::oid, 'USAGE'))
     AND (p.polroles @> ARRAY[0::oid]
          OR EXISTS (SELECT FROM unnest(p.polroles) AS of (role) WHERE pg_has_role(r.oid, of.role, 'USAGE')))
"""
# An aggregate's own volatility says nothing: what it is made of does.
_FUNCTIONS = """
  SELECT p.oid::bigint, n.nspname, p.proname, p.provolatile, p.prosrc, p.prosqlbody::text,
         coalesce(obj_description(p.oid, 'pg_proc'), ''),
         md5(concat_ws('|', p.prosrc, pg_get_function_sqlbody(p.oid), p.proconfig)),
         (SELECT array_agg(part::bigint) FROM unnest(ARRAY[g.aggtransfn, g.aggfinalfn, g.aggcombinefn, g.aggserialfn,
            g.aggdeserialfn, g.aggmtransfn, g.aggminvtransfn, g.aggmfinalfn]::oid[]) AS part
           WHERE part <> 0 AND n.nspname <> 'pg_catalog')
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid
   WHERE p.oid = ANY (%s)
"""

# A relation, and the role it is read as.
Place: TypeAlias = tuple[int, int]


@dataclass(slots=True)
class Follows:
    """Why a table cannot be shown to guests, "" if it can; and the functions its owner marked, each with its body."""

    why: str = ""
    marked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A stored query, condition or function's body: what it is called, its nodes, and whom it reads relations as."""

    named: str
    nodes: str
    reader: int

    def relations(self) -> list[Place]:
        """The relations it reads."""
        return [(oid, self.reader) for oid in _numbers(_RELATION, self.nodes)]


@dataclass(frozen=True, slots=True)
class _Function:
    """A function, as its own row in the catalogue has it."""

    schema: str
    name: str
    volatile: str
    source: str
    comment: str
    digest: str
    parts: tuple[int, ...]
    body: _Tree

    @property
    def builtin(self) -> bool:
        """Whether it is PostgreSQL's own."""
        return self.schema == "pg_catalog"

    def refused(self, *, fast: bool) -> bool:
        """Whether a guest may be able to set what it answers."""
        if not self.builtin:
            return self.volatile != "i" or bool(_SETTINGS_READ.search(self.source))
        if self.volatile == "i":
            return False
        if fast:
            return self.name not in _MOMENTS
        if self.volatile == "v":
            return self.name not in _HARMLESS_VOLATILE
        return bool(_SESSIONS.fullmatch(self.name)) and self.name not in _HARMLESS_STABLE


def find(session: Session, tables: Mapping[str, tuple[int, bool]]) -> dict[str, Follows]:
    """What the rows of each table follow.

    Args:
        tables: by any name, each table's oid, and whether it is read without the function that pins parameters.
    """
    row = session.execute("SELECT oid::bigint FROM pg_roles WHERE rolname = current_user").fetchone()
    registrar = int(row[0]) if row else 0
    stored = _Stored(session, registrar)
    stored.load({(oid, registrar) for oid, _ in tables.values()})
    return {name: _follow(stored, (oid, registrar), fast=fast) for name, (oid, fast) in tables.items()}


class _Stored:
    """What the catalogue has of relations and functions, and of all they rest on, a level at a time."""

    def __init__(self, session: Session, registrar: int) -> None:
        self._session = session
        self._registrar = registrar
        self.systems: dict[int, str] = {}
        self.trees: dict[Place, list[_Tree]] = {}
        self.functions: dict[int, _Function] = {}
        self._operators: dict[int, int] = {}

    def load(self, places: set[Place]) -> None:
        """Ask for relations, and then for what they rest on."""
        functions, operators = set[int](), set[int]()
        while places or functions or operators:
            trees = [*self._relations(places), *self._functions(functions, operators)]
            places = {place for tree in trees for place in tree.relations()} - self.trees.keys()
            functions = {oid for tree in trees for oid in _numbers(_FUNCTION, tree.nodes)}
            functions |= {part for one in self.functions.values() for part in one.parts}
            functions -= self.functions.keys()
            operators = {oid for tree in trees for oid in _numbers(_OPERATOR, tree.nodes)} - self._operators.keys()

    def called(self, tree: _Tree) -> list[_Function]:
        """The functions that a tree calls, by name or as an operator."""
        by_operator = {self._operators[oid] for oid in _numbers(_OPERATOR, tree.nodes)}
        return [self.functions[oid] for oid in sorted({*_numbers(_FUNCTION, tree.nodes), *by_operator})]

    def _relations(self, places: set[Place]) -> list[_Tree]:
        self.trees |= {place: [] for place in places}
        asked = {"oids": [oid for oid, _ in places], "readers": [reader for _, reader in places]}
        found = self._session.execute(_RELATIONS, asked).fetchall() if places else []
        for oid, reader, name, system, policy, nodes, next_reader in found:
            if system:
                self.systems[oid] = name
            elif nodes is not None:
                named = f"The policy {policy} of {name}" if policy else f"The view {name}"
                self.trees[oid, reader].append(_Tree(named, nodes, next_reader))
        return [tree for place in places for tree in self.trees[place]]

    def _functions(self, functions: set[int], operators: set[int]) -> list[_Tree]:
        if operators:
            query = "SELECT oid::bigint, oprcode::oid::bigint FROM pg_operator WHERE oid = ANY (%s)"
            self._operators |= dict(self._session.execute(query, (list(operators),)).fetchall())
            functions = {*functions, *(self._operators[oid] for oid in operators)} - self.functions.keys()
        found = self._session.execute(_FUNCTIONS, (list(functions),)).fetchall() if functions else []
        for oid, schema, name, volatile, source, body, comment, digest, parts in found:
            tree = _Tree(f"The function {schema}.{name}", body or "", self._registrar)
            function = _Function(schema, name, volatile, source or "", comment, digest, tuple(parts or ()), tree)
            self.functions[oid] = function
        return [one.body for oid in functions if not (one := self.functions[oid]).builtin]


def _follow(stored: _Stored, table: Place, *, fast: bool) -> Follows:
    follows, waiting, seen = Follows(), list(stored.trees[table]), set[_Tree]()
    if table[0] in stored.systems:
        follows.why = f"{stored.systems[table[0]]} shows what guests set."
    while waiting and not follows.why:
        tree = waiting.pop(0)
        if tree in seen:
            continue
        seen.add(tree)
        follows.why = _system(stored, tree)
        for place in tree.relations():
            waiting += stored.trees[place]
        called = stored.called(tree)
        while called and not follows.why:
            function = called.pop(0)
            if not function.builtin and MARK in function.comment:
                follows.marked.add(f"{function.schema}.{function.name} {function.digest}")
                continue
            follows.why = _refusal(tree, function, fast=fast)
            if not function.builtin:
                waiting.append(function.body)
                called += [stored.functions[part] for part in function.parts]
        follows.why = follows.why or _formatted(tree, fast=fast)
    return follows


def _system(stored: _Stored, tree: _Tree) -> str:
    system = next((stored.systems[oid] for oid, _ in tree.relations() if oid in stored.systems), "")
    return f"{tree.named} reads {system}, which shows what guests set." if system else ""


def _formatted(tree: _Tree, *, fast: bool) -> str:
    if not fast or not _FORMATTED.search(tree.nodes):
        return ""
    return f"{tree.named} follows the session's formats or time zone, which only a slice without `fast` holds."


def _refusal(tree: _Tree, function: _Function, *, fast: bool) -> str:
    if not function.refused(fast=fast):
        return ""
    if function.builtin and not function.refused(fast=False):
        return f"{tree.named} calls {function.name}, which follows parameters that only a slice without `fast` holds."
    if function.builtin:
        return f"{tree.named} calls {function.name}, and a guest can set what that answers."
    name = f"{function.schema}.{function.name}"
    return (
        f"{tree.named} calls {name}, which is not IMMUTABLE or reads settings: a guest may set what it answers. If not,"
        f" its owner says so: COMMENT ON FUNCTION {name} IS '{MARK}'."
    )


def _numbers(which: re.Pattern[str], nodes: str) -> set[int]:
    return {int(oid) for oid in which.findall(nodes)} - {0}
