"""How many leases one holder may have: live ones on a grant, and ended ones that their backend must still remember."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select

from broker.base.database import Transaction
from broker.base.errors import Conflict
from broker.identity.caller import Caller
from broker.kinds.base import Kind
from broker.models import Lease
from broker.models.lease import LIVE_STATES

# A bucket's policy refuses about 500 sessions of everybody's: a twelfth of that is the most that one holder can fill.
MOST_REMEMBERED = 40
_CODE = "too_many_leases"


def reached(
    tx: Transaction, grant_id: str, caller: Caller, kind: Kind, most_live: int, now: datetime
) -> Conflict | None:
    """Why this caller gets no further lease on the grant now, or None.

    The caller's row is locked already, so two issues at once are counted one after the other.
    """
    own = (Lease.person_id if caller.kind == "person" else Lease.service_id) == caller.id
    live = _counted(tx, own, Lease.grant_id == grant_id, Lease.state.in_(LIVE_STATES))
    if live >= most_live:
        return Conflict(
            f"You already have {live} live leases under this grant; at most {most_live} are allowed.",
            advice="End one with `guestkey lease revoke`, or wait until one expires.",
            code=_CODE,
        )
    if not kind.ending.remembered:
        return None
    lately = now - timedelta(seconds=kind.ending.remembered)
    lives_on = or_(Lease.expires_at > now, Lease.created_at > lately)
    ended = _counted(tx, own, Lease.kind == kind.name, Lease.state.not_in(LIVE_STATES), lives_on)
    if ended < MOST_REMEMBERED:
        return None
    return Conflict(
        f"{ended} credentials of yours were ended early and must still be refused by their backend, which has room for"
        " few.",
        advice="Use one credential for longer instead of getting a new one each time. Try again later.",
        code=_CODE,
    )


def _counted(tx: Transaction, *which: ColumnElement[bool]) -> int:
    return tx.execute(select(func.count()).select_from(Lease).where(*which)).scalar_one()
