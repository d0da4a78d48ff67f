"""Grants by a file in the portal: looked at first, done with a fresh factor; given by owners, asked for by leads."""

from __future__ import annotations

from datetime import timedelta

import httpx
from sqlalchemy import select

from broker.models import Dataset, Grant, Request
from tests.support.browser import Browser
from tests.support.world import Signed, World
from tests.web.conftest import BrowserOf

HEADING = "dataset,role,purpose,until,person,team,slice\n"


def send(browser: Browser, text: str, **fields: str) -> httpx.Response:
    """Send the form as a browser does: the file at first, its lines after that."""
    sent = {"csrf_token": browser.csrf, **fields}
    if "do" in fields:
        return browser.post("/grants/import", data=sent | {"lines": text})
    return browser.post("/grants/import", data=sent, files={"file": ("grants.csv", text.encode(), "text/csv")})


def made(world: World, dataset: Dataset, what: type[Grant] | type[Request]) -> int:
    with world.database.transaction() as tx:
        return len(tx.scalars(select(what).where(what.dataset_id == dataset.id)).all())


def lines(world: World, dataset: Dataset, *people: Signed) -> str:
    until = (world.now() + timedelta(days=30)).date().isoformat()
    return HEADING + "".join(f"{dataset.slug},annotator,March visits,{until},{one.id},,\n" for one in people)


def test_owner_imports_grants_after_the_preview(world: World, browser_of: BrowserOf) -> None:
    vendor, owner = world.vendor(), world.person()
    dataset = world.dataset(vendor, owner=owner, register=False)
    browser = browser_of(owner)
    assert "/grants/import" in browser.get("/grants").text
    assert "Give grants from a file" in browser.get("/grants/import").text
    text = lines(world, dataset, world.person(vendor), world.person(vendor), owner)
    looked = send(browser, text)
    assert "2 grants would be given" in looked.text and "1 line would be refused" in looked.text
    assert made(world, dataset, Grant) == 0
    world.change_sessions(owner.id, factor_at=world.now() - timedelta(hours=1))
    assert "Confirm it is you" in send(browser, text, do="yes", keep_going="yes").text
    assert made(world, dataset, Grant) == 0, "nothing without a fresh factor"
    world.change_sessions(owner.id, factor_at=world.now())
    done = send(browser, text, do="yes", keep_going="yes")
    assert "2 grants given" in done.text and "/grants/gr_" in done.text
    assert made(world, dataset, Grant) == 2
    assert "Every grant in the file was already given." in send(browser, text, do="yes", keep_going="yes").text
    assert made(world, dataset, Grant) == 2
    wrong = send(browser, "nonsense\n1\n")
    assert wrong.status_code == 422 and 'id="file-wrong"' in wrong.text


def test_lead_imports_requests_and_others_are_refused(world: World, browser_of: BrowserOf) -> None:
    vendor, owner = world.vendor(), world.person()
    lead, guest = world.person(vendor, roles=("lead",)), world.person(vendor)
    dataset = world.dataset(vendor, owner=owner, register=False)
    browser = browser_of(lead)
    assert "/grants/import" in browser.get("/requests").text
    assert "Request grants from a file" in browser.get("/grants/import").text
    text = lines(world, dataset, guest)
    assert "1 request would be sent" in send(browser, text).text
    assert (made(world, dataset, Request), made(world, dataset, Grant)) == (0, 0)
    done = send(browser, text, do="yes")
    assert "1 request sent" in done.text and "/requests/rq_" in done.text
    assert (made(world, dataset, Request), made(world, dataset, Grant)) == (1, 0)
    engineer = browser_of(guest)
    assert "/grants/import" not in engineer.get("/requests").text
    assert engineer.get("/grants/import").status_code == 403
    assert send(engineer, text, do="yes").status_code == 403
    assert made(world, dataset, Request) == 1
