"""The screens beside the main job, and that they work by keyboard, without scripts, and with hostile text."""

from __future__ import annotations

from urllib.parse import urlencode

import psycopg
from playwright.sync_api import expect

from broker.base.ids import new_id
from broker.identity.caller import Caller
from broker.models import Grant, Suspension
from broker.registry import proposals
from tests.portal.conftest import GuestOf
from tests.portal.house import House, Someone


def test_main_flow_without_scripts(house: House, guest_of: GuestOf) -> None:
    """Asking, confirming with a code and getting a credential need no JavaScript."""
    vendor, source = house.vendor()
    olga, engineer = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(olga, vendor)
    house.grant(dataset, engineer)
    secret = house.app(engineer)
    ada = guest_of(engineer, scripts=False, factor_age=None)
    ada.secret = secret
    ada.open(f"/ask?dataset={dataset.slug}")
    ada.choose("Role", "evaluator")
    ada.page.get_by_label("full").check()
    ada.fill("Purpose", "Compare two labellings")
    ada.choose("For how long", "86400")
    ada.press("Send request")
    ada.says("Nothing was changed")
    ada.page.get_by_label("deidentified").check()
    ada.press("Send request")
    ada.says("Waiting for the dataset's owner")
    ada.open("/")
    ada.page.get_by_role("link", name="Get credential").click()
    ada.fill("Code from your authenticator app", ada.code())
    ada.press("Confirm and get credential")
    ada.says("Shown only once")
    ada.page.get_by_text("Show", exact=True).click()
    password = ada.page.locator("#secret-1").inner_text()
    command = ada.page.locator("#tool").inner_text()
    assert "sslmode=" in command and password not in command
    with psycopg.connect(command.removeprefix('psql "').removesuffix('"'), password=password) as session:
        session.execute("SELECT 1")
    ada.press("Revoke credential")
    ada.says("revoking")


def test_second_admin_approves_a_proposal(house: House, guest_of: GuestOf) -> None:
    """The proposer cannot approve; another admin can, and it happens."""
    olga, omar = house.someone("Olga Admin", None, "admin"), house.someone("Omar Admin", None, "admin")
    ines = house.someone("Ines Auditor")
    with house.world.database.transaction() as tx:
        details = {"person_id": ines.id, "role": "auditor"}
        made = proposals.propose(tx, "give_role", ines.id, details, _admin(house, olga), house.world.now())
    first = guest_of(olga)
    first.open("/proposals")
    first.look("proposals")
    first.open(f"/proposals/{made.id}")
    first.says("Another admin must approve this")
    assert first.page.locator("dt", has_text="Person id").count() == 0, "who it is about is said once"
    first.look("proposal-own")
    assert first.page.get_by_role("button", name="Approve").count() == 0
    second = guest_of(omar)
    second.open(f"/proposals/{made.id}")
    second.look("proposal")
    second.press("Approve proposal")
    second.says("approved")
    second.look("proposal-decided")
    second.open(f"/people/{ines.id}")
    second.says("auditor")
    second.page.get_by_text("Change roles").click()
    second.look("person")
    second.press("Create enrolment link")
    second.says("shown only once")
    second.look("enrolment-link")


def test_engineers_pages_open(house: House, guest_of: GuestOf) -> None:
    """Every place can be looked at; what people wrote is text, whatever it holds."""
    vendor, source = house.vendor()
    olga, engineer = house.someone("Olga Owner"), house.someone("Ada Engineer", source)
    dataset = house.dataset(olga, vendor)
    grant = house.grant(dataset, engineer)
    purpose = "<img src=x onerror=alert(1)>\"'&amp;<script>alert(2)</script>"
    house.request(dataset, engineer, purpose)
    house.app(engineer)
    ada = guest_of(engineer)
    ada.page.on("dialog", lambda dialog: ada.faults.append(dialog.message))
    for path, name in (
        ("/datasets", "datasets"),
        (f"/datasets/{dataset.slug}", "dataset"),
        ("/requests", "requests"),
        (f"/grants/{grant.id}", "grant"),
        ("/leases", "leases-empty"),
        ("/confirm?next=/leases", "confirm"),
    ):
        ada.open(path)
        ada.look(name)
    ada.open("/requests")
    ada.follow("annotator")
    ada.says(purpose)
    ada.look("request-hostile")
    ada.press("Withdraw request")
    ada.says("withdrawn")
    ada.follow("Send a new request")
    expect(ada.page.get_by_label("Purpose", exact=True)).to_have_value(purpose)
    house.world.change(Grant, grant.id, slice_name="gone")
    ada.open(f"/grants/{grant.id}/credential")
    ada.says("This dataset has no slices yet")
    ada.look("credential-no-slice")


def test_empty_and_missing_pages_say_so(house: House, guest_of: GuestOf) -> None:
    """Somebody new sees what to do first; what is not theirs, or not understood, is a page that says so."""
    ada = guest_of(house.someone("Ada Engineer", house.vendor()[1]))
    for path, name, says in (
        ("/", "home-new", "You need one before your first credential."),
        ("/ask", "ask-empty", "No datasets yet."),
        ("/requests", "requests-empty", "No requests yet."),
        ("/access-at", "problem-403", "Only admins and auditors can see this."),
        ("/requests?cursor=nonesuch", "problem-422", "Start without one."),
        ("/problems/too_many_requests", "problem-429", ""),
        ("/problems/backend_down", "problem-503", ""),
    ):
        ada.open(path)
        ada.says(says)
        ada.look(name)


def test_auditors_home_page(house: House, guest_of: GuestOf) -> None:
    """Who only looks finds what happened and ways to take it out, and nothing to ask for."""
    ines = house.someone("Ines Auditor", None, "auditor")
    suspended = {"what": "vendor", "target_id": new_id("vn"), "name": "Borealis", "reason": "an incident"}
    house.world.add(
        Suspension(id=new_id("su"), found={}, suspended_by=ines.id, started_at=house.world.now(), **suspended)
    )
    auditor = guest_of(ines)
    auditor.open("/")
    auditor.says("Borealis")
    assert auditor.page.locator(".timeline li").count() == 10
    assert auditor.page.get_by_text("Request access to a dataset").count() == 0
    auditor.look("home-auditor")


def test_lead_requests_for_a_staff_member(house: House, guest_of: GuestOf) -> None:
    vendor, source = house.vendor()
    lea, ada = house.someone("Lea Lead", source, "lead"), house.someone("Ada Engineer", source)
    dataset = house.dataset(house.someone("Olga Owner"), vendor)
    lead = guest_of(lea)
    lead.open(f"/ask?dataset={dataset.slug}")
    lead.choose("For whom", f"person:{ada.id}")
    lead.choose("Role", "annotator")
    lead.page.get_by_label("deidentified").check()
    lead.fill("Purpose", "Label the March visits")
    lead.choose("For how long", "604800")
    lead.look("ask-lead")
    lead.press("Send request")
    lead.says("by Lea Lead for Ada Engineer")
    lead.press("Withdraw request")
    lead.follow("Send a new request")
    expect(lead.page.get_by_label("For whom", exact=True)).to_have_value(f"person:{ada.id}")


def test_command_line_consent_page(house: House, guest_of: GuestOf) -> None:
    """Consent ends on a page with a link, because a redirect after a form would be blocked."""
    ada = guest_of(house.someone("Ada Engineer"))
    asked = {
        "response_type": "code",
        "client_id": "guestkey-cli",
        "redirect_uri": "http://127.0.0.1:1/callback",
        "code_challenge": "a" * 43,
        "code_challenge_method": "S256",
        "state": "s" * 20,
    }
    ada.open(f"/oauth/authorize?{urlencode(asked)}")
    ada.look("authorize")
    ada.press("Sign in the command line")
    ada.look("authorized")
    link = ada.page.get_by_role("link", name="Finish signing in").get_attribute("href") or ""
    assert link.startswith("http://127.0.0.1:1/callback?") and "code=" in link


def test_sign_in_returns_to_the_requested_page(house: House, guest_of: GuestOf) -> None:
    """No error for an ended session: sign in at the real login page, and be there."""
    olga = guest_of(house.someone("Olga Owner"), signed_in=False)
    olga.open("/leases?state=all")
    olga.look("sign-in")
    way = olga.page.get_by_role("link", name=f"Sign in with {house.own.name}", exact=True).get_attribute("href")
    assert way
    olga.sign_in(way)
    # The way back leads over another address, where a slow machine may be seen for a moment.
    expect(olga.page).to_have_url(f"{house.url}/leases?state=all")
    olga.follow("No second factor yet")
    expect(olga.page.get_by_role("link", name="Not now")).to_have_attribute("href", "/leases?state=all")
    expect(olga.page.get_by_role("link", name="No second factor yet")).to_have_attribute(
        "href", "/confirm?next=/leases%3Fstate%3Dall"
    )
    olga.press("Sign out")
    assert olga.page.url.startswith(f"{house.url}/sign-in")
    olga.open("/")
    assert olga.page.url.startswith(f"{house.url}/sign-in")


def _admin(house: House, someone: Someone) -> Caller:
    return Caller(
        kind="person",
        id=someone.id,
        name=someone.name,
        vendor_id=None,
        holder_id="",
        how="session",
        signed_in_at=house.world.now(),
        factor_at=house.world.now(),
        factor_enrolled=True,
        roles=frozenset({"admin"}),
    )
