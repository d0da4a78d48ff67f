"""What the gate decides on: plain, frozen values. Whatever is not here cannot influence a decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CallerFacts:
    """Who asks. `subject` is `person:<id>` or `service:<id>`; `factor_at` is of this very session or token.

    `person` is the id of the person behind it: themselves, or who was last shown the service's secret.
    """

    subject: str
    status: str
    vendor: str | None
    factor_at: datetime | None = None
    factor_enrolled: bool = False
    address: str | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True)
class VendorFacts:
    """The vendor the caller belongs to."""

    id: str
    status: str


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """A slice of the dataset: whether its backend is ready, which actions it serves, and the person who bound it.

    `changed`: what it is made of is not any more what its owner saw.
    """

    name: str
    ready: bool
    actions: frozenset[str]
    bound_by: str | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """The dataset asked for. `offered` is about the caller's vendor; labels look like `classification:internal`.

    `labelled_by`: the ids of the people who chose the labels.
    """

    id: str
    slug: str
    status: str
    labels: frozenset[str]
    retention_until: datetime | None = None
    offered: bool = False
    slices: tuple[SliceFacts, ...] = ()
    labelled_by: frozenset[str] = frozenset()

    @property
    def targets(self) -> frozenset[str]:
        """What a rule's target may name to cover this dataset."""
        return frozenset({f"dataset:{self.slug}", *(f"label:{label}" for label in self.labels)})


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """A grant that names the caller, one of its teams or it as a service; `max_lifetime` is in seconds.

    `status` is `active`, or `held` until an admin has confirmed it after a restore.
    """

    id: str
    role: str
    holder: str
    starts_at: datetime
    ends_at: datetime
    status: str = "active"
    slice: str | None = None
    max_lifetime: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one question: may this caller do this to that, now. `lifetime` asked is in seconds.

    `closed_at`: since when the whole installation is closed, if it is.
    """

    caller: CallerFacts | None
    vendor: VendorFacts | None
    dataset: DatasetFacts | None
    grants: tuple[GrantFacts, ...]
    action: str
    slice: str | None = None
    kind: str | None = None
    lifetime: int | None = None
    closed_at: datetime | None = None
