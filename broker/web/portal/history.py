"""What happened to a person, a vendor or a dataset lately, and whether it is suspended: a part of their pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.auditing.event_texts import told
from broker.auditing.reading_events import EventFilters, EventRead, list_events
from broker.base.paging import Window
from broker.models import Suspension
from broker.revocation.counts import What
from broker.suspensions.reports import open_suspension
from broker.web.portal.forms import PortalRequest

_LATEST = 5


@dataclass(frozen=True, slots=True)
class History:
    """The latest events with their sentences, and the open suspension as far as the viewer sees it."""

    id: str
    events: Sequence[tuple[EventRead, str]]
    suspension: Suspension | None


def history(req: PortalRequest, what: What, id_: str) -> History:
    """What happened to something lately."""
    filters = EventFilters(vendor=id_) if what == "vendor" else EventFilters(about=id_)
    items = list_events(req.tx, req.caller, Window(limit=_LATEST), filters).items
    return History(id_, told(req.tx, req.caller, items), open_suspension(req.tx, req.caller, what, id_))
