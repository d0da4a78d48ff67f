"""A slice whose table has changed, and one whose queries are too slow: what its owner sees and does."""

from __future__ import annotations

import time

from broker.models import Slice
from tests.portal.conftest import GuestOf
from tests.portal.house import House
from tests.support.world import CLINIC, World


def state_of(world: World, slice_id: str) -> str:
    """How a slice stands."""
    with world.database.transaction() as tx:
        return tx.get_one(Slice, slice_id).state


def becomes(world: World, slice_id: str, state: str) -> None:
    """Wait until the worker has it so."""
    end = time.monotonic() + 60
    while state_of(world, slice_id) != state:
        assert time.monotonic() < end, state_of(world, slice_id)
        time.sleep(0.1)


def test_owner_confirms_a_changed_slice_and_sets_it_fast(house: House, guest_of: GuestOf) -> None:
    world, owner = house.world, house.someone("Olga Owner")
    with world.admin() as session:
        session.execute("CREATE TABLE clinic.shelf (id int, site text)")
        session.execute("GRANT SELECT ON clinic.shelf TO guestkey_registrar")
    dataset = house.dataset(owner)
    binding = CLINIC | {"table": "shelf", "columns": ["id"], "rows": [["site", "=", "berlin"]]}
    made = Slice(id="sl_shelf", dataset_id=dataset.id, name="shelf", kind="postgres", binding=binding, actions=["read"])
    world.add(made)
    becomes(world, "sl_shelf", "ready")
    olga = guest_of(owner, factor_age=10)
    with world.admin() as session:
        session.execute("ALTER TABLE clinic.shelf RENAME TO shelf_old; CREATE TABLE clinic.shelf (id int, site text)")
        session.execute("GRANT SELECT ON clinic.shelf TO guestkey_registrar")
    becomes(world, "sl_shelf", "changed")
    olga.open(f"/datasets/{dataset.slug}/slices")
    olga.says("shelf is closed")
    olga.says("clinic.shelf is a different table than before")
    olga.look("slices-changed")
    olga.press("Accept the table of shelf as it is now")
    becomes(world, "sl_shelf", "ready")
    olga.open(f"/datasets/{dataset.slug}/slices")
    olga.page.get_by_text("Are queries on shelf too slow?").click()
    olga.says("guests can then find out whether a value exists in a hidden row")
    olga.press("Read shelf in the faster form")
    becomes(world, "sl_shelf", "ready")
    olga.open(f"/datasets/{dataset.slug}/slices")
    olga.says("shelf is read in the faster form")
    auditor = guest_of(house.someone("Uma Auditor", None, "auditor"))
    auditor.open(f"/datasets/{dataset.slug}/slices")
    assert auditor.page.get_by_role("button", name="Hide hidden values again").count() == 0
