"""The caller: the authenticated person or service behind one request, and how and when it proved itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from broker.models import Person


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, as this session or token proved it; made by `broker.identity`, trusted by everything below.

    `holder_id` is the id of the session or API token: the second factor is proven for it, never for the person.
    `factor_at` is when that was. `roles` are the organisation-wide or vendor-wide roles held now.
    """

    kind: Literal["person", "service"]
    id: str
    name: str
    vendor_id: str | None
    holder_id: str
    how: Literal["session", "api_token", "operator"]
    signed_in_at: datetime
    factor_at: datetime | None = None
    factor_method: str | None = None
    factor_enrolled: bool = False
    roles: frozenset[str] = field(default_factory=frozenset)
    address: str | None = None

    @classmethod
    def not_asking(cls, person: Person, now: datetime, *, factor_enrolled: bool = False) -> Caller:
        """A person who is not asking now, as decisions about them know them: by no session, with no factor proven."""
        return cls(
            kind="person",
            id=person.id,
            name=person.name,
            vendor_id=person.vendor_id,
            holder_id="",
            how="session",
            signed_in_at=now,
            factor_enrolled=factor_enrolled,
        )

    @property
    def subject(self) -> str:
        """The prefixed name used in rules, grants and events: `person:<id>` or `service:<id>`."""
        return f"{self.kind}:{self.id}"

    @property
    def is_admin(self) -> bool:
        """Whether the caller is an admin of the organisation."""
        return self.kind == "person" and self.vendor_id is None and "admin" in self.roles

    @property
    def is_auditor(self) -> bool:
        """Whether the caller may read everything of the organisation, and change nothing."""
        return self.kind == "person" and self.vendor_id is None and "auditor" in self.roles
