"""Guests whose slices are in the records alone: for what asks no backend, which is most of what decides."""

from __future__ import annotations

from sqlalchemy import update

from broker.models import Dataset, Grant, Slice
from tests.support.world import Signed, World


def dataset_on_record(world: World, *offered_to: object, **changes: object) -> Dataset:
    """A dataset whose slices count as ready, though no backend knows them."""
    made = world.dataset(*offered_to, register=False, **changes)  # type: ignore[arg-type]
    with world.database.transaction() as tx:
        tx.execute(update(Slice).where(Slice.dataset_id == made.id).values(state="ready"))
    return made


def guest_on_record(world: World, role: str = "annotator") -> tuple[Signed, Dataset, Grant]:
    """An active vendor's engineer with a grant on such a dataset: everything holds, and kind `token` can be issued."""
    vendor = world.vendor()
    signed, dataset = world.person(vendor), dataset_on_record(world, vendor)
    return signed, dataset, world.grant(dataset, signed, role)


def service_on_record(world: World) -> tuple[Signed, Dataset, Grant]:
    """A vendor's service with a grant on such a dataset."""
    vendor = world.vendor()
    signed, dataset = world.service(vendor), dataset_on_record(world, vendor)
    return signed, dataset, world.grant(dataset, signed, "pipeline")
