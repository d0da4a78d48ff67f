"""What makes a database unfit to be connected, whatever else is right with it."""

from __future__ import annotations

from pydantic import PostgresDsn

from broker.base.errors import Conflict, Invalid
from broker.operator.connecting.place import OLDEST, Place, Session

_RECORDS = """SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'guestkey' AND c.relname IN ('installation', 'lease', 'event')"""


def unfit(session: Session, place: Place, user: str, records: PostgresDsn) -> None:
    """Refuse what must not be connected.

    Raises:
        Invalid: the server is too old, or the login is a superuser.
        Conflict: these are the broker's own records.
    """
    version = session.info.server_version // 10000
    if version < OLDEST:
        raise Invalid(
            f"This is PostgreSQL {version}; Guestkey needs {OLDEST} or newer.",
            advice="Older versions let a guest take on a slice's role and outlive its own. Upgrade the server.",
        )
    row = session.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if row is None or row[0]:
        raise Invalid(
            f"{user} is a superuser, and connecting needs none.",
            field="/user",
            advice="Give a login that is none. What only a superuser may do is printed for them to run.",
        )
    same = [host for host in records.hosts() if (host["host"], host["port"] or 5432) == (place.host, place.port)]
    own = same and (records.path or "").lstrip("/") == place.dbname
    if own or session.execute(_RECORDS).fetchone() is not None:
        raise Conflict(
            "These are the broker's own records.",
            advice="Guests must never be able to enter that database. Connect the one that holds the datasets.",
        )
