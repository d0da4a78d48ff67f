"""Notices in the portal: reading them, choosing what is mailed, and channels of the organisation."""

from __future__ import annotations

import time

from broker.models import NoticeAddress
from tests.portal.conftest import GuestOf
from tests.portal.house import House


def test_person_reads_notices_and_chooses_mails(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    owner, ada = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(owner, vendor)
    house.world.add(NoticeAddress(person_id=ada.id, address="ada@example.org"))
    asking = guest_of(ada)
    asking.open("/notices")
    asking.says("No notices yet.")
    asking.look("notices-empty")
    request = house.request(dataset, ada)
    olga = guest_of(owner, factor_age=10)
    olga.open(f"/requests/{request.id}")
    olga.fill("Reason", "Ask for less.")
    olga.press("Refuse request")
    end = time.monotonic() + 10
    while asking.open("/notices").get_by_role("link", name="Your request was refused").count() == 0:
        assert time.monotonic() < end, "the worker tells nobody"
        time.sleep(0.2)
    asking.look("notices")
    asking.press("Mark all as read")
    asking.says("No unread notices.")
    asking.follow("Choose which notices are mailed to you")
    asking.look("notice-choices")
    asking.choose("Your requests", "digest")
    asking.fill("Time zone", "Mars/Olympus")
    asking.press("Save choices")
    asking.says("There is no such time zone.")
    asking.fill("Time zone", "Europe/Berlin")
    asking.press("Save choices")
    asking.says("Saved.")
    assert asking.page.get_by_label("Your requests").input_value() == "digest"


def test_admin_adds_tests_and_removes_a_webhook(house: House, guest_of: GuestOf) -> None:
    admin = guest_of(house.someone("Ines Admin", None, "admin"), factor_age=10)
    admin.open("/settings/notices")
    admin.look("channels-empty")
    admin.fill("Name", "Incidents")
    # Inside, which this operator allows nowhere: an address is refused at once, a name when it is used.
    admin.fill("Address", "https://127.0.0.1:1/hook")
    admin.press("Add channel")
    admin.says("The target lies inside a network")
    admin.fill("Address", "https://localhost:1/hook")
    admin.press("Add channel")
    admin.says("Choose at least one topic")
    admin.look("channels-refused")
    admin.fill("Address", "https://localhost:1/hook")
    admin.page.get_by_label("Emergencies").check()
    admin.press("Add channel")
    admin.says("it is shown only once")
    admin.look("channel-bound")
    secret = admin.page.locator("#secret").text_content() or ""
    admin.follow("Go back to channels")
    assert secret.startswith("whsec_") and secret not in admin.page.content()
    admin.press("Send test to Incidents")
    end = time.monotonic() + 10
    while "lies inside a network" not in (admin.open("/settings/notices").text_content("main") or ""):
        assert time.monotonic() < end, "the worker tries nothing"
        time.sleep(0.2)
    admin.look("channels")
    admin.press("Remove Incidents")
    admin.says("No webhooks or chats yet.")
