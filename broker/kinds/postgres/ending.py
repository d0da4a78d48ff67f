"""Taking users of ours away in PostgreSQL by hand, many at once: sessions, log-in, sessions, users, then the question.

The order is the point, and that each step is committed before the next begins. Sessions are ended before log-in is
switched off, because a guest can lock the row that this changes; and after, because one may have come in meanwhile.
What a guest may read is taken first: it is a row that none can lock, and nothing is read or logged in to without it,
though the session that holds the row computes something that PostgreSQL cannot interrupt.
Whoever stands in the way is ended while we wait for it. Knows nothing of OpenBao or of leases.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import LiteralString

import psycopg
import structlog
from psycopg import sql

from broker.kinds.postgres.sessions import Session, beside

log = structlog.get_logger(__name__)
# A log-in that was let in before it was switched off becomes a session that can be seen within this.
_LATECOMERS_SECONDS = 0.1
# Sessions end within milliseconds of being told to; one that hangs in the kernel is seen when PostgreSQL is asked.
_GOING_SECONDS = 1.0
_POLL_SECONDS = 0.02
# Where one user's row or role is locked, each is worked at by itself, several at a time.
_HELPERS = 4
# So that one statement stays well within its timeout.
_AT_ONCE = 100
# Together only what is free at once: otherwise one guest would hold up the hundred beside it.
_TOGETHER_LOCK = "200ms"
_ALONE_LOCK = "700ms"
_TRIES = 2
# Less than the five seconds declared: what has not ended by then is reported, and tried again.
_MOST_SECONDS = 4.0
_HOPE_SECONDS = 3.0

# A session whose user was dropped shows no name any more, only the number the user had.
_SHOWN = """
    SELECT oid::bigint, rolname, false FROM pg_roles WHERE rolname = ANY(%(users)s)
    UNION ALL
    SELECT a.usesysid::bigint, a.usename, true FROM pg_stat_activity a
     WHERE a.usename = ANY(%(users)s)
        OR (a.usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid))
"""
_MAY_REVOKE = "SELECT to_regprocedure('guestkey_ops.revoke_rights(name)') IS NOT NULL"


class UserSnapshot:
    """What PostgreSQL shows of some users: their numbers while they exist, and sessions, also of dropped ones."""

    def __init__(self, session: Session, users: Sequence[str]) -> None:
        rows = session.execute(_SHOWN, {"users": list(users)}).fetchall()
        self.numbers: Mapping[str, int] = {name: number for number, name, is_session in rows if not is_session}
        self.logged_in = frozenset(str(name) for _, name, is_session in rows if is_session and name is not None)
        self.orphans = [int(number) for number, name, is_session in rows if is_session and name is None]


def drop_users(session: Session, users: Sequence[str], another: Callable[[], Session]) -> dict[str, str]:
    """Take users away; returns for each what PostgreSQL shows of it afterwards, empty if nothing.

    Args:
        session: of the watch login, autocommitting.
        another: opens one more such session.

    Raises:
        psycopg.Error: the server refuses to be asked, or goes away meanwhile.
    """
    until = monotonic() + _MOST_SECONDS
    hopeful = monotonic() + _HOPE_SECONDS
    before = after = UserSnapshot(session, users)
    if before.numbers or before.logged_in or before.orphans:
        terminate_sessions(session, before, users)
        # A database connected before this function came is ended without it.
        if session.execute(_MAY_REVOKE).fetchone() == (True,):
            _call_for_all(session, another, "revoke_rights", before.numbers, until)
        may_log_in = _call_for_all(session, another, "close_door", before.numbers, until)
        # Only then: who reconnects without pause would else be let in again under a user that is about to go.
        sleep(_LATECOMERS_SECONDS)
        _end_sessions(session, users, until)
        _call_for_all(session, another, "drop_user", before.numbers.keys() - may_log_in, until)
        # What kept a log-in most likely keeps its user: nobody waits for that twice.
        _call_for_all(session, another, "drop_user", may_log_in, hopeful)
        after = UserSnapshot(session, users)
        if after.orphans or after.logged_in:
            _end_sessions(session, users, until)
            after = UserSnapshot(session, users)
    return {user: _remains(user, before, after) for user in users}


def _remains(user: str, before: UserSnapshot, after: UserSnapshot) -> str:
    number = before.numbers.get(user)
    # Of one that was gone already nobody knows the number: any session without a user may be its.
    orphans = sum(number in (None, orphan) for orphan in after.orphans)
    roles, sessions = int(user in after.numbers), int(user in after.logged_in) + orphans
    return f"{roles} role, {sessions} sessions" if roles or sessions else ""


def terminate_sessions(session: Session, shown: UserSnapshot, users: Sequence[str]) -> None:
    """Tell sessions to end, without waiting for them; those of users that are gone go by any user's name."""
    if not (shown.logged_in or shown.orphans):
        return
    try:
        session.execute("SELECT guestkey_ops.signal_sessions(%s::name[])", (list(users),))
    except psycopg.errors.UndefinedFunction:
        # A database connected before this function came: that one waits for each session it ends.
        for user in sorted(shown.logged_in) or users[:1]:
            session.execute("SELECT guestkey_ops.end_sessions(%s)", (user,))


def _end_sessions(session: Session, users: Sequence[str], until: float) -> None:
    end = min(monotonic() + _GOING_SECONDS, until)
    while True:
        shown = UserSnapshot(session, users)
        if not (shown.logged_in or shown.orphans) or monotonic() > end:
            return
        terminate_sessions(session, shown, users)
        sleep(_POLL_SECONDS)


def _call_for_all(
    session: Session, another: Callable[[], Session], function: LiteralString, users: Collection[str], until: float
) -> set[str]:
    """Do it to all together; where one holds that up, to each by itself while whoever blocks us is ended.

    Returns to whom it was not done.
    """
    stubborn: list[str] = []
    _lock_timeout(session, _TOGETHER_LOCK)
    ordered = sorted(users)
    for some in (ordered[at : at + _AT_ONCE] for at in range(0, len(ordered), _AT_ONCE)):
        try:
            _call(session, function, some)
        except psycopg.Error as error:
            if session.closed:
                raise
            log.warning("postgres.not_together", function=function, error=type(error).__name__)
            stubborn += some
    return _one_by_one(session, another, function, stubborn, until) if stubborn else set()


def _one_by_one(
    session: Session, another: Callable[[], Session], function: LiteralString, users: Sequence[str], until: float
) -> set[str]:
    left = set(users)
    if monotonic() >= until:
        return left
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for user in users:
        waiting.put(user)

    def work_off(session: Session) -> None:
        _lock_timeout(session, _ALONE_LOCK)
        with suppress(queue.Empty):
            while monotonic() < until:
                if _alone(session, user := waiting.get_nowait(), function, until):
                    left.discard(user)

    def help_out(_: threading.Event) -> None:
        with another() as session:
            work_off(session)

    def end_blockers(over: threading.Event) -> None:
        """End every guest's session that our own wait for, whoever's it is."""
        with another() as session:
            while not over.wait(_POLL_SECONDS):
                try:
                    session.execute("SELECT guestkey_ops.end_blockers()")
                except psycopg.errors.UndefinedFunction:
                    terminate_sessions(session, UserSnapshot(session, users), users)

    helpers = min(_HELPERS, len(users) - 1)
    with beside("ending-blockers", end_blockers), beside("ending-users", help_out, threads=helpers):
        work_off(session)
    return left


def _alone(session: Session, user: str, function: LiteralString, until: float) -> bool:
    for _ in range(_TRIES):
        try:
            _call(session, function, [user])
        except psycopg.Error as error:
            if session.closed:
                raise
            # Its row is locked, it owns something elsewhere, or another worker is at it too.
            log.warning("postgres.not_done", function=function, user=user, error=type(error).__name__)
        else:
            return True
        if monotonic() >= until:
            break
    return False


def _lock_timeout(session: Session, limit: str) -> None:
    session.execute("SELECT set_config('lock_timeout', %s, false)", (limit,))


def _call(session: Session, function: LiteralString, users: Sequence[str]) -> None:
    # One statement, one commit.
    query = sql.SQL("SELECT {}(u) FROM unnest(%s::name[]) u").format(sql.Identifier("guestkey_ops", function))
    session.execute(query, (list(users),))
