"""What decides the rows of a view in MariaDB: does it follow anything that a guest may set?

MariaDB lets no view name a variable, but functions answer as the session has it: `SET timestamp` moves `now()`. Nothing
there holds a session's variables for a view, so whatever follows one is refused. See
docs/decisions/0166-a-slice-follows-no-setting-of-a-guest.md.
"""

from __future__ import annotations

import re

from pymysql.cursors import Cursor

ADVICE = (
    "Let the table's owner make a view or a table that states the rows without it, or use a row filter of the slice."
    " docs/connect-mariadb.md says more."
)
# Each by the variable that a guest sets for it, or by what a session has for itself.
_FUNCTIONS: dict[str, str] = {
    **dict.fromkeys(("now", "current_timestamp", "localtime", "localtimestamp", "sysdate"), "timestamp or time_zone"),
    **dict.fromkeys(("curdate", "current_date", "curtime", "current_time", "unix_timestamp"), "timestamp or time_zone"),
    **dict.fromkeys(("utc_date", "utc_time", "utc_timestamp"), "timestamp"),
    "from_unixtime": "time_zone",
    **dict.fromkeys(("date_format", "dayname", "monthname", "format", "to_char"), "lc_time_names"),
    "week": "default_week_format",
    **dict.fromkeys(("group_concat", "json_arrayagg", "json_objectagg"), "group_concat_max_len"),
    "rand": "rand_seed1",
    "last_insert_id": "last_insert_id",
    **dict.fromkeys(("database", "schema"), "the database in use"),
    **dict.fromkeys(("connection_id", "found_rows", "row_count", "lastval", "nextval", "current_role"), "its session"),
    **dict.fromkeys(("get_lock", "release_lock", "is_free_lock", "is_used_lock"), "its locks"),
}
# MariaDB stores a view in one manner: names in backquotes, texts in quotes, keywords in small letters.
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_NAME = r"`((?:[^`]|``)*)`"
_PART_OF = re.compile(r"\b(?:extract|trim)\([^()`]* from ")
_SOURCE = re.compile(rf"(?:from|join) \(*{_NAME}\.{_NAME}(?!\()")
_STORED = re.compile(rf"{_NAME}\.{_NAME}\s*\(")
_CALL = re.compile(r"\b([a-z_][a-z0-9_]*)\s*\(", re.IGNORECASE)
_KIND = "SELECT table_type FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
_VIEW = "SELECT view_definition FROM information_schema.views WHERE table_schema = %s AND table_name = %s"
_COMPUTED = """
    SELECT column_name, generation_expression FROM information_schema.columns
     WHERE table_schema = %s AND table_name = %s AND generation_expression <> ''
"""


def find(cursor: Cursor, schema: str, table: str) -> str:
    """Why a table cannot be shown to guests, or "": a sentence on the first thing found below it."""
    waiting, seen = [(schema, table)], set[tuple[str, str]]()
    while waiting:
        place = waiting.pop(0)
        if place in seen:
            continue
        seen.add(place)
        named = ".".join(place)
        cursor.execute(_KIND, place)
        if (kind := cursor.fetchone()) is None:
            return _unseen(named)
        if str(kind[0]) != "VIEW":
            cursor.execute(_COMPUTED, place)
            found = (_called(f"The column {name} of {named}", str(how)) for name, how in cursor.fetchall())
            if why := next(filter(None, found), ""):
                return why
            continue
        cursor.execute(_VIEW, place)
        row = cursor.fetchone()
        if row is None or not row[0]:
            return _unseen(named)
        definition = _PART_OF.sub("(", _LITERAL.sub("''", str(row[0])))
        if why := _called(f"The view {named}", definition):
            return why
        waiting += [
            (first.replace("``", "`"), second.replace("``", "`")) for first, second in _SOURCE.findall(definition)
        ]
    return ""


def _unseen(named: str) -> str:
    return (
        f"What decides the rows of {named} cannot be seen: GRANT SHOW VIEW ON {named} TO guestkey_registrar@'%', which"
        " lets it read no row."
    )


def _called(where: str, text: str) -> str:
    text = _LITERAL.sub("''", text)
    if stored := _STORED.search(text):
        return f"{where} calls {'.'.join(stored.groups())}, which may answer as a guest has set its session."
    for name in _CALL.findall(re.sub(_NAME, "` `", text)):
        if follows := _FUNCTIONS.get(name.lower()):
            return f"{where} calls {name.lower()}, and a guest can set what that answers ({follows})."
    return ""
