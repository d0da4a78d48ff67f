"""An owner's and an admin's day: taking in a vendor, offering a dataset, seeing who reaches it and why not."""

from __future__ import annotations

from playwright.sync_api import expect

from broker.models import Dataset, Grant, Lease, Vendor
from tests.portal.conftest import GuestOf
from tests.portal.house import House


def test_vendor_is_added_and_offered_a_dataset(house: House, guest_of: GuestOf) -> None:
    owner = house.someone("Olga Owner")
    dataset = house.dataset(owner)
    admin = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    admin.open("/vendors")
    admin.follow("Add a vendor")
    admin.look("vendor-new")
    name = f"Label \u2014 Works {dataset.slug[-4:]}"
    admin.fill("Name", name)
    admin.press("Add vendor")
    admin.says(name)
    admin.look("vendor-onboarding")
    admin.fill("Reason", "papers are complete")
    admin.press(f"Activate {name}")
    admin.says("active")
    admin.open("/vendors?status=suspended")
    assert admin.page.get_by_role("link", name=name).count() == 0, "the filter is in the address"
    admin.open(f"/vendors?cursor=vn_{'0' * 26}")
    admin.says("No vendors yet. Add the first one")
    admin.look("vendors-empty")
    admin.open("/vendors/new")
    admin.fill("Name", name.upper())
    admin.press("Add vendor")
    admin.says("A vendor with that name already exists.")

    olga = guest_of(owner, factor_age=10)
    olga.open(f"/datasets/{dataset.slug}")
    olga.follow("See who has access")
    olga.says("Not offered to any vendor yet.")
    olga.choose("Vendor to offer it to", name)
    olga.press("Offer dataset")
    expect(olga.page.get_by_role("listitem").filter(has_text=name)).to_be_visible()
    olga.look("who")
    house.grant(dataset, owner)
    olga.page.reload()
    olga.says("role:annotator")
    olga.look("who-table")
    olga.choose("Vendor to withdraw it from", name)
    olga.press("Withdraw offer")
    olga.says("Not offered to any vendor yet.")


def test_suspended_dataset_stays_visible_and_is_resumed(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    owner, ada = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(owner, vendor)
    olga = guest_of(owner, factor_age=10)
    olga.open(f"/datasets/{dataset.slug}")
    olga.look("dataset-owner")
    olga.follow("Suspend Clinical trials…")
    olga.follow("Continue")
    olga.fill("Reason", "a column too many")
    olga.fill("Type the name", "Clinical trials")
    olga.press("Suspend Clinical trials and revoke 0 leases")
    for who, sees in ((olga, True), (guest_of(ada), False)):
        who.open("/datasets")
        assert who.page.get_by_role("listitem").filter(has_text=dataset.slug).count() == sees
        who.open("/datasets?status=active")
        assert dataset.slug not in who.page.content(), "the filter is in the address"
    olga.open("/datasets?status=suspended")
    expect(olga.page.get_by_role("listitem").filter(has_text=dataset.slug)).to_contain_text("suspended")
    auditor = guest_of(house.someone("Aud Itor", None, "auditor"))
    auditor.open(f"/datasets/{dataset.slug}")
    auditor.says("see the report")
    assert auditor.page.get_by_role("main").get_by_role("button").count() == 0
    olga.open(f"/datasets/{dataset.slug}")
    assert olga.page.get_by_role("link", name="Request a role").count() == 0
    olga.says("Olga Owner suspended the dataset")
    olga.look("dataset-suspended")
    olga.fill("Reason", "the column is gone")
    olga.press("Resume Clinical trials")
    expect(olga.page.get_by_role("link", name="Request a role")).to_be_visible()
    auditor.open(f"/datasets/{dataset.slug}")
    assert auditor.page.get_by_role("link", name="Request a role").count() == 0


def test_permanent_changes_need_the_typed_name_and_a_fresh_factor(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    ada, ines = house.someone("Ada Engineer", source), house.someone("Ines Admin", None, "admin")
    dataset = house.dataset(house.someone("Olga Owner"), vendor)
    grant = house.grant(dataset, ada)
    house.app(ada)
    admin = guest_of(ines, factor_age=10)
    admin.open("/datasets")
    admin.look("datasets-admin")
    admin.open(f"/people/{ada.id}")
    admin.follow("Reset their second factor…")
    admin.fill("Type the name", "Ada Engineer")
    admin.press("Propose the reset")
    admin.says("Another admin must approve this")
    for place, name, act, record in (
        (f"/datasets/{dataset.slug}", "Clinical trials", "Retire", Dataset),
        (f"/vendors/{vendor.id}", vendor.name, "Offboard", Vendor),
    ):
        admin.open(place)
        admin.follow(f"{act} {name}…")
        admin.fill("Reason", "the work is done")
        admin.fill("Type the name", "something else")
        admin.press(f"{act} {name}")
        admin.says("The name does not match.")
        admin.fill("Type the name", name)
        if act == "Offboard":
            admin.look("offboard")
            house.factor(ines, 3600)
            admin.press(f"{act} {name}")
            admin.says("This needs a second factor")
            with house.world.database.transaction() as tx:
                assert tx.get_one(Vendor, vendor.id).status == "active"
            house.factor(ines, 10)
            admin.open(f"{place}/offboard")
            admin.fill("Reason", "the work is done")
            admin.fill("Type the name", name)
        admin.press(f"{act} {name}")
        admin.says("retired" if record is Dataset else "offboarded")
        assert admin.page.get_by_role("link", name=f"{act} {name}").count() == 0
    with house.world.database.transaction() as tx:
        assert tx.get_one(Dataset, dataset.id).status == "retired"
        assert tx.get_one(Grant, grant.id).revoked_at is not None
    guest = guest_of(house.someone("Olaf Owner"))
    for path in (
        f"/vendors/{vendor.id}/offboard",
        f"/datasets/{dataset.slug}/retire",
        f"/people/{ada.id}/reset-factor",
    ):
        guest.open(path)
        guest.says("Only admins can do this.")


def test_why_says_every_reason_and_the_rule(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    owner, ada = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(owner, vendor)
    olga = guest_of(owner)
    house.request(dataset, ada)
    olga.open("/why")
    olga.look("why-empty")
    olga.fill("Dataset", dataset.slug)
    olga.fill("Person", f"{ada.username}@EXAMPLE.org")
    olga.press("Check access")
    olga.says("No credential would be issued to Ada Engineer")
    olga.says("You have no grant on this dataset.")
    theirs = olga.page.get_by_role("region", name="What they can fix")
    expect(theirs.get_by_role("link")).to_have_count(0)
    house.grant(dataset, ada)
    olga.fill("Slice", "deidentified")
    olga.press("Check access")
    olga.says("line 8: role:annotator, label:classification:internal, deidentified, read")
    olga.look("why")
    olga.choose("Action", "write")
    olga.choose("Kind", "token")
    olga.press("Check access")
    olga.says("This slice does not allow 'write'.")
    command = f"guestkey why {dataset.slug} --action write --slice deidentified --kind token --person {ada.id}"
    expect(olga.page.locator("#command")).to_have_text(command)
    olga.fill("Person", "Nobody Such")
    olga.press("Check access")
    olga.says("Nobody that you can see has that name.")
    olga.fill("Person", "")
    house.grant(dataset, owner)
    olga.open(f"/why?dataset={dataset.slug}&slice=deidentified")
    olga.says("A credential would be issued")
    olga.look("why-allowed")
    olga.fill("Dataset", "no-such-dataset")
    olga.press("Check access")
    olga.says("There is no such dataset")
    guest = guest_of(ada)
    guest.open(f"/why?dataset={dataset.slug}&person=Olga+Owner")
    guest.says("Nobody that you can see has that name.")
    for path in ("/grants", "/leases", "/why", "/events"):
        guest.open(f"{path}?person={owner.id}&about={owner.id}")
        assert "Olga" not in guest.page.content(), "an id tried out tells no name"
    guest.open(f"/why?dataset={dataset.slug}&person={owner.id}")
    guest.says("Only an admin, an auditor or the dataset's owner can ask about other people.")
    guest.open(f"/datasets/{dataset.slug}/who")
    assert "can see who has access to a dataset" in guest.page.content() or "Services cannot" in guest.page.content()


def test_leases_show_problems_first_and_grants_are_found(house: House, guest_of: GuestOf) -> None:
    world = house.world
    signed, dataset, grant = world.guest()
    fine, failing = (world.issue(signed, dataset).lease for _ in range(2))
    later = failing.expires_at
    world.change(Lease, failing.id, state="revoke_failed", attempts=4, next_attempt_at=later, last_error="still there")
    admin = guest_of(house.someone("Ines Admin", None, "admin"))
    admin.open(f"/leases?dataset={dataset.slug}")
    admin.says("attempt 4")
    admin.says("guestkey_ops.drop_user('gk_")
    rows = admin.page.locator("tbody tr")
    assert rows.count() == 2
    expect(rows.first.get_by_role("link")).to_have_attribute("href", f"/leases/{failing.id}")
    expect(rows.last.get_by_role("link", name="Revoke…")).to_have_attribute("href", f"/leases/{fine.id}")
    admin.says(f"{dataset.slug}, deidentified, held by Ada Guest: attempt 4")
    admin.look("leases-problems")
    admin.open(f"/grants?dataset={dataset.slug}")
    expect(admin.page.get_by_role("link", name="Ada Guest")).to_have_attribute("href", f"/grants/{grant.id}")
    admin.look("grants")
    admin.open(f"/grants?dataset={dataset.slug}&person={signed.id}")
    command = f"guestkey grant list --dataset {dataset.slug} --person {signed.id}"
    expect(admin.page.locator("#command")).to_have_text(command)
    admin.says("1 grant")
    admin.open("/grants?dataset=none-such")
    admin.says("No grant matches.")
    admin.look("grants-empty")
    admin.open("/leases?person=Nobody+Such")
    admin.says("Nobody that you can see has that name.")
    admin.open(f"/leases?dataset={dataset.slug}&state=all&person={signed.id}")
    assert admin.page.get_by_label("Person").input_value() == "Ada Guest"
    admin.look("leases-all")
    world.change(Lease, failing.id, state="revoking", next_attempt_at=world.now())
    world.wait_for(failing.id, "revoked")
    admin.open(f"/leases?dataset={dataset.slug}&kind=token")
    admin.says("No live leases.")
    assert world.lease(fine.id).state == "active"
