"""Taking a list out of the portal as it is filtered."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.portal.conftest import GuestOf
from tests.portal.house import House


def test_list_export_matches_the_filter(house: House, guest_of: GuestOf) -> None:
    world = house.world
    signed, dataset, grant = world.guest()
    lease = world.issue(signed, dataset).lease
    world.guest()
    admin = guest_of(house.someone("Ines Admin", None, "admin"))
    for path, id_ in (
        (f"/people?vendor={signed.caller.vendor_id}", signed.id),
        (f"/grants?dataset={dataset.slug}&state=all", grant.id),
        (f"/leases?dataset={dataset.slug}", lease.id),
    ):
        admin.open(path)
        with admin.page.expect_download() as taken:
            admin.page.get_by_role("link", name="Export as CSV").click()
        with Path(taken.value.path()).open(newline="", encoding="utf-8") as lines:
            assert [row["id"] for row in csv.DictReader(lines)] == [id_], path
    assert not admin.faults
