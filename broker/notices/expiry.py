"""What time alone brings about: grants, requests and proposals in the last quarter of their time. Each is told once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.ids import new_id
from broker.models import Notice
from broker.runtime.parts import Parts

GRANT, REQUEST, PROPOSAL = "grant.lapsing", "request.lapsing", "proposal.lapsing"
_GRANTS_SOON = timedelta(days=3)
_UNTOLD = "NOT EXISTS (SELECT FROM guestkey.notice n WHERE n.once = :kind || ' ' || due.id)"
# Whoever asked for less than a day knows when it ends.
_GRANTS = """
    SELECT due.id FROM guestkey."grant" due
      JOIN guestkey.dataset d ON d.id = due.dataset_id AND d.status = 'active'
      LEFT JOIN guestkey.person p ON p.id = due.person_id
      LEFT JOIN guestkey.team t ON t.id = due.team_id
      LEFT JOIN guestkey.service s ON s.id = due.service_id
      LEFT JOIN guestkey.vendor v ON v.id = coalesce(p.vendor_id, t.vendor_id, s.vendor_id)
     WHERE due.revoked_at IS NULL AND due.ends_at > :now AND due.ends_at <= :soon
       AND due.ends_at - due.starts_at >= interval '1 day'
       AND due.ends_at - :now <= (due.ends_at - due.starts_at) / 4
       AND (v.id IS NULL OR v.status IN ('onboarding', 'active'))
"""
_REQUESTS = """
    SELECT due.id FROM guestkey.request due
      JOIN guestkey.dataset d ON d.id = due.dataset_id AND d.status = 'active'
      JOIN guestkey.person p ON p.id = due.person_id
      LEFT JOIN guestkey.vendor v ON v.id = p.vendor_id
     WHERE due.state = 'pending' AND due.lapses_at > :now
       AND due.lapses_at - :now <= (due.lapses_at - due.created_at) / 4
       AND (v.id IS NULL OR v.status IN ('onboarding', 'active'))
"""
_PROPOSALS = """
    SELECT due.id FROM guestkey.proposal due
     WHERE due.state = 'pending' AND due.lapses_at > :now
       AND due.lapses_at - :now <= (due.lapses_at - due.created_at) / 4
"""
KINDS: Mapping[str, str] = {GRANT: _GRANTS, REQUEST: _REQUESTS, PROPOSAL: _PROPOSALS}
_MOST = 500


def queue_expiring(parts: Parts) -> int:
    """Put what is about to lapse into the outbox. Returns how many."""
    with parts.database.transaction() as tx:
        return sum(_note(tx, kind, due) for kind, due in KINDS.items())


def _note(tx: Transaction, kind: str, due: str) -> int:
    now = clock(tx)
    given = {"kind": kind, "now": now, "most": _MOST} | ({"soon": now + _GRANTS_SOON} if ":soon" in due else {})
    found = tx.scalars(text(f"{due} AND {_UNTOLD} LIMIT :most"), given)
    rows = [
        {"id": new_id("no"), "kind": kind, "actor": "system", "subject": id_, "once": f"{kind} {id_}"} for id_ in found
    ]
    if rows:
        tx.execute(insert(Notice).on_conflict_do_nothing(), rows)
    return len(rows)
