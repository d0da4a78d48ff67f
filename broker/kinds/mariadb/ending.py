"""Taking users of ours away in MariaDB by hand, many at once: connections, accounts, both again, then the question.

Connections are killed before anything is asked: a kill writes nothing and waits for nobody, while a guest whose
statement waits for room on a full disk holds the table of accounts, and whoever asks for that waits, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import pymysql
import structlog
from pymysql.constants import ER

from broker.kinds.mariadb.slices import Session
from broker.kinds.values import NotEnded

log = structlog.get_logger(__name__)
# Less than the five seconds declared, with one last statement: what has not ended by then is tried again.
_MOST_SECONDS = 3.0
# A killed session is gone once it notices, which takes milliseconds; who reconnects without pause shows up meanwhile.
_PAUSE_SECONDS = 0.02
# What the server shows of a connection that was killed and has not noticed yet.
_KILLED = "killed"
CONFIRMED = "mariadb: no such user, no connection"
CUT = "mariadb: no such user; its connection is cut, and what it began computes on for nobody"
# A server that was prepared before the procedure came.
_OLDER = (ER.SP_DOES_NOT_EXIST, ER.PROCACCESS_DENIED_ERROR)


def drop_users(another: Callable[[], Session], users: Sequence[str]) -> dict[str, str | NotEnded]:
    """End users of ours; returns for each what confirms it, or why nothing does.

    Args:
        another: opens a session of the watch login whose statements wait for less than is declared.

    Raises:
        BackendDown: the server cannot be reached.
        pymysql.Error: it refuses to be asked, or goes away meanwhile.
    """
    with another() as session:
        # From here: how to log in may have been asked of an OpenBao that hangs.
        until = monotonic() + _MOST_SECONDS
        kill(session, users)
        shown = _shown(session, users)
        confirmed = {user: CONFIRMED for user in users if not shown[user]}
        ended, pending = set[str](), [user for user in users if shown[user]]
        while pending and monotonic() < until:
            ended |= {user for user in pending if monotonic() < until and _end(session, user)}
            sleep(_PAUSE_SECONDS)
            shown = _shown(session, users)
            # Only after a kill that followed the lock: a guest that kills its own statements is shown alike.
            over = {user for user in pending if not shown[user] or (user in ended and {*shown[user]} == {_KILLED})}
            confirmed |= {user: CUT if shown[user] else CONFIRMED for user in over}
            pending = [user for user in pending if user not in over]
    return {user: confirmed.get(user) or _remains(shown[user]) for user in users}


def kill(session: Session, users: Sequence[str]) -> None:
    """Kill the connections of users of ours, who may still log in."""
    with session.cursor() as cursor:
        for user in users:
            try:
                cursor.execute("CALL guestkey_ops.kill_guest(%s)", (user,))
            except pymysql.Error as error:
                if error.args[0] in _OLDER:
                    return
                raise


def guests(session: Session, user: str) -> Sequence[tuple[Any, ...]]:
    """Users and connections that the server shows of one of ours, or ("") of all; each as name and what it is."""
    with session.cursor() as cursor:
        cursor.execute("CALL guestkey_ops.guests(%s)", (user,))
        return cursor.fetchall()


def _shown(session: Session, users: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name, what in guests(session, users[0] if len(users) == 1 else ""):
        found[name].append(what)
    return found


def _end(session: Session, user: str) -> bool:
    try:
        with session.cursor() as cursor:
            cursor.execute("CALL guestkey_ops.end_guest(%s)", (user,))
    except pymysql.Error as error:
        if not session.open:
            raise
        # One that cannot be dropped keeps none of the others in.
        log.warning("mariadb.not_ended", user=user, error=type(error).__name__)
        return False
    return True


def _remains(shown: Sequence[str]) -> NotEnded:
    users = shown.count("user")
    return NotEnded(f"MariaDB still shows {users} user, {len(shown) - users} connections")
