"""An admin's slice of an object store, step by step: what could widen it is told beside its field."""

from __future__ import annotations

import re
import time

from sqlalchemy import select

from broker.models import Slice
from tests.portal.conftest import GuestOf
from tests.portal.guests import Guest
from tests.portal.house import House


def shows(guest: Guest, words: str) -> None:
    """Reload until the page says it, a pattern."""
    until = time.monotonic() + 15
    while not re.search(words, guest.page.locator("main").inner_text()):
        assert time.monotonic() < until, guest.page.locator("main").inner_text()
        time.sleep(0.2)
        guest.page.reload()


def test_a_slice_of_a_bucket_is_registered(house: House, guest_of: GuestOf) -> None:
    dataset = house.dataset(house.someone("Olga Owner"))
    ines = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    ines.open(f"/datasets/{dataset.slug}/slices")
    for bucket, name, prefix, outcome in (
        # Other tests leave objects there.
        ("clinic", "pictures", "trials/", r"about \d+ objects"),
        ("nonesuch", "labels", "labels/", r"There is no such bucket\."),
    ):
        ines.follow("Add a slice")
        ines.page.get_by_label("Where the data is").select_option(value="s3/objects")
        ines.press("Continue")
        ines.fill("Bucket", bucket)
        ines.fill("Prefix", prefix.removesuffix("/"))
        ines.press("Continue")
        ines.says("A prefix ends with /")
        assert ines.page.locator("#prefix").get_attribute("aria-invalid") == "true"
        ines.fill("Prefix", prefix)
        ines.page.get_by_label("write").check()
        ines.press("Continue")
        ines.fill("Name of the slice", name)
        ines.press("Continue")
        ines.press("Register slice")
        shows(ines, outcome)
    with house.world.database.transaction() as tx:
        made = tx.scalars(select(Slice).where(Slice.dataset_id == dataset.id, Slice.name == "pictures")).one()
    assert (made.kind, made.state, made.actions) == ("s3", "ready", ["read", "write"])
    assert made.binding == {"connection": "objects", "bucket": "clinic", "prefix": "trials/"}
