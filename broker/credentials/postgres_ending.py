"""Taking users of ours away in PostgreSQL by hand, many at once: doors, then sessions, then users, then the question.

The order is the point, and that each step is committed before the next begins. Knows nothing of OpenBao or of leases.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import Any

import psycopg
import structlog
from psycopg import sql

from broker.errors import BackendDown

log = structlog.get_logger(__name__)
Session = psycopg.Connection[tuple[Any, ...]]
# A log-in that had passed the door before it was closed becomes a session that can be seen within this.
_LATECOMERS_SECONDS = 0.1
# PostgreSQL waits 100 ms for each session it ends, one after the other: several ask at once.
_HELPERS = 5
# So that one statement stays well within its timeout.
_AT_ONCE = 100

# A session whose user was dropped shows no name any more, only the number the user had.
_SHOWN = """
    SELECT oid::bigint, rolname, false FROM pg_roles WHERE rolname = ANY(%(users)s)
    UNION ALL
    SELECT a.usesysid::bigint, a.usename, true FROM pg_stat_activity a
     WHERE a.usename = ANY(%(users)s)
        OR (a.usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid))
"""


class Looked:
    """What PostgreSQL shows of some users: their numbers while they exist, and sessions, also of dropped ones."""

    def __init__(self, session: Session, users: Sequence[str]) -> None:
        rows = session.execute(_SHOWN, {"users": list(users)}).fetchall()
        self.numbers: Mapping[str, int] = {name: number for number, name, is_session in rows if not is_session}
        self.logged_in = frozenset(str(name) for _, name, is_session in rows if is_session and name is not None)
        self.orphans = [int(number) for number, name, is_session in rows if is_session and name is None]

    @property
    def nothing(self) -> bool:
        """Neither a user nor a session."""
        return not (self.numbers or self.logged_in or self.orphans)


def take_away(session: Session, users: Sequence[str], another: Callable[[], Session]) -> dict[str, str]:
    """Take users away; returns for each what PostgreSQL shows of it afterwards, empty if nothing.

    Args:
        session: of the watch login, autocommitting.
        another: opens one more such session.

    Raises:
        psycopg.Error: the server refuses to be asked, or goes away meanwhile.
    """
    before = after = Looked(session, users)
    if not before.nothing:
        _in_parts(session, "close_door", before.numbers)
        # Only then: who reconnects without pause would else be let in again under a user that is about to go.
        sleep(_LATECOMERS_SECONDS)
        _end_sessions(session, users, another)
        _drop(session, before.numbers)
        after = Looked(session, users)
        if after.orphans:
            # They go by any user's name: whoever's user is gone is ended.
            session.execute("SELECT guestkey_ops.end_sessions(%s)", (users[0],))
            after = Looked(session, users)
    return {user: _remains(user, before, after) for user in users}


def _remains(user: str, before: Looked, after: Looked) -> str:
    number = before.numbers.get(user)
    # Of one that was gone already nobody knows the number: any session without a user may be its.
    orphans = sum(number in (None, orphan) for orphan in after.orphans)
    roles, sessions = int(user in after.numbers), int(user in after.logged_in) + orphans
    return f"{roles} role, {sessions} sessions" if roles or sessions else ""


def _end_sessions(session: Session, users: Sequence[str], another: Callable[[], Session]) -> None:
    shown = Looked(session, users)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for user in sorted(shown.logged_in) or (users[:1] if shown.orphans else []):
        waiting.put(user)
    helpers = [
        threading.Thread(target=_help, args=(waiting, another), name="ending-sessions")
        for _ in range(min(_HELPERS, waiting.qsize() - 1))
    ]
    for helper in helpers:
        helper.start()
    try:
        _work_off(waiting, session)
    finally:
        for helper in helpers:
            helper.join()


def _help(waiting: queue.SimpleQueue[str], another: Callable[[], Session]) -> None:
    try:
        with another() as session:
            _work_off(waiting, session)
    except (BackendDown, psycopg.Error) as error:
        # The others do its part; what nobody does is seen when PostgreSQL is asked.
        log.warning("postgres.helper_lost", error=type(error).__name__)


def _work_off(waiting: queue.SimpleQueue[str], session: Session) -> None:
    with suppress(queue.Empty):
        while True:
            session.execute("SELECT guestkey_ops.end_sessions(%s)", (waiting.get_nowait(),))


def _drop(session: Session, users: Collection[str]) -> None:
    """Drop them together or, should one refuse to go, each by itself."""
    for some in _parts(users):
        try:
            _call(session, "drop_user", some)
        except psycopg.Error as error:
            if session.closed:
                raise
            log.warning("postgres.not_dropped_together", error=type(error).__name__)
            for user in some:
                _drop_alone(session, user)


def _drop_alone(session: Session, user: str) -> None:
    try:
        _call(session, "drop_user", [user])
    except psycopg.Error as error:
        if session.closed:
            raise
        # It owns something elsewhere, or another worker is at it too: what is left of it is asked for afterwards.
        log.warning("postgres.not_dropped", user=user, error=type(error).__name__)


def _in_parts(session: Session, function: str, users: Collection[str]) -> None:
    for some in _parts(users):
        _call(session, function, some)


def _call(session: Session, function: str, users: Sequence[str]) -> None:
    # One statement, one commit.
    query = sql.SQL("SELECT {}(u) FROM unnest(%s::name[]) u").format(sql.Identifier("guestkey_ops", function))
    session.execute(query, (list(users),))


def _parts(users: Iterable[str]) -> list[list[str]]:
    ordered = sorted(users)
    return [ordered[at : at + _AT_ONCE] for at in range(0, len(ordered), _AT_ONCE)]
