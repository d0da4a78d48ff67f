"""For a dataset's owner and admins: changing its title, text, labels, owner and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.models import Dataset, Person, Proposal
from broker.registry.datasets import DatasetChange, change_dataset, require_owner_or_admin
from broker.registry.datasets import dataset as dataset_seen
from broker.registry.naming import each_told_apart
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer
from broker.web.proposed import lifetime_of

router = APIRouter()
_MOST = 500


@router.get("/datasets/{slug}/change")
def change_page(slug: str, viewer: MemberNow) -> HTMLResponse:
    """The form, filled with what the dataset is now."""
    return _page(Setback(viewer), slug, {})


@router.post("/datasets/{slug}/change")
def change(slug: str, viewer: MemberNow, sent: Sent) -> Response:
    """Change what is different from now; what takes two becomes a proposal."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            now = clock(tx)
            asked = _different(dataset_seen(tx, viewer.caller, slug), sent)
            changed = change_dataset(tx, viewer.caller, slug, asked, now, lifetime=lifetime_of(viewer.parts))
        return go(f"/proposals/{changed.id}" if isinstance(changed, Proposal) else f"/datasets/{slug}")

    return act(viewer, sent, do, lambda back: _page(back, slug, sent), needs=fresh)


def _different(found: Dataset, sent: Mapping[str, str]) -> DatasetChange:
    """What the form says otherwise than the records; what it does not hold stays."""
    title, description = sent.get("title", "").strip(), sent.get("description", "").strip()
    labels = sent.get("labels", "").replace(",", " ").split()
    owner, until = sent.get("owner", ""), _end_of_day(sent.get("kept_until", "").strip())
    kept = found.retention_until.date() if found.retention_until else None
    return DatasetChange(
        title=title if title != found.title else None,
        description=description if description != found.description else None,
        labels=tuple(labels) if set(labels) != set(found.labels) else None,
        owner_id=owner if owner not in ("", found.owner_id) else None,
        retention_until=until if until and until.date() != kept else None,
        forever=until is None and kept is not None,
    )


def _end_of_day(text: str) -> datetime | None:
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(23, 59, 59), UTC) if text else None
    except ValueError:
        raise Invalid("Enter a day like 2030-12-31.", field="/kept_until") from None


def _page(back: Setback, slug: str, sent: Mapping[str, str]) -> HTMLResponse:
    viewer = back.viewer
    with viewer.parts.database.transaction() as tx:
        found = dataset_seen(tx, viewer.caller, slug)
        require_owner_or_admin(viewer.caller, found)
        people = select(Person).where(Person.vendor_id.is_(None), Person.status == "active")
        known = each_told_apart(tx.scalars(people.order_by(Person.name, Person.id).limit(_MOST)))
        owners = [item for item in known.items() if item[0] != viewer.caller.id or item[0] == found.owner_id]
        if found.owner_id not in dict(owners):
            owners.insert(0, ("", "No change" if found.owner_id else "None yet: admins decide"))
        filled = sent or {
            "title": found.title,
            "description": found.description,
            "labels": ", ".join(found.labels),
            "owner": found.owner_id or "",
            "kept_until": found.retention_until.date().isoformat() if found.retention_until else "",
        }
        return render(
            "owner/change_dataset.html",
            viewer=viewer,
            status=back.status if back.trouble or back.panel else 200,
            trouble=back.trouble,
            panel=back.panel,
            dataset=found,
            filled=filled,
            owners=owners,
        )
