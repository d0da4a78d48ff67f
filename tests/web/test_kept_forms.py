"""A form that comes after its session has ended: shown back, sent again after sign-in, and no way past CSRF."""

from __future__ import annotations

import html
import re

import pytest
from sqlalchemy import func, select

from broker.identity.http import SESSION_COOKIE
from broker.models import Request, Session
from tests.support.browser import Browser
from tests.support.world import World
from tests.web.conftest import BrowserOf

OURS = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}


@pytest.fixture
def form(world: World) -> dict[str, str]:
    """A request for a role, as its form sends it; `code` is of a second factor."""
    vendor = world.vendor()
    dataset = world.dataset(vendor)
    return {
        "vendor": str(vendor.id),
        "dataset": dataset.slug,
        "role": "annotator",
        "purpose": "Label <b>March</b> & April",
        "period": "604800",
        "code": "123456",
    }


def hidden(page: str) -> dict[str, str]:
    """The fields that the page's own form sends."""
    own = page.partition("<main")[2]
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', own)
    return {name: html.unescape(value) for name, value in found}


def asked(world: World, dataset: str) -> int:
    """How many requests there are for a dataset."""
    from broker.models import Dataset

    with world.database.transaction() as tx:
        query = select(func.count()).select_from(Request).join(Dataset, Dataset.id == Request.dataset_id)
        return tx.execute(query.where(Dataset.slug == dataset)).scalar_one()


def test_form_is_kept_after_a_sign_out_in_another_tab(
    world: World, browser_of: BrowserOf, form: dict[str, str]
) -> None:
    from broker.models import Vendor

    with world.database.transaction() as tx:
        vendor = tx.get_one(Vendor, form.pop("vendor"))
    ada = world.person(vendor)
    browser = browser_of(ada)
    world.change_sessions(ada.id, ended_at=world.now(), end_cause="signed_out")
    sent = {"csrf_token": browser.csrf, **form}
    lost = browser.post("/requests", data=sent, headers=OURS)
    assert lost.status_code == 401 and "What you wrote stays on this page" in lost.text
    kept = hidden(lost.text)
    assert kept == {name: value for name, value in form.items() if name != "code"}
    assert 'href="/sign-in?next=/requests"' in lost.text and "no-store" in lost.headers["cache-control"]
    # Signed in again, in another tab of the same browser.
    again = browser_of(ada)
    offered = again.post("/requests", data=kept, headers=OURS | {"X-CSRF-Token": ""})
    assert offered.status_code == 403 and "Send this again?" in offered.text and asked(world, form["dataset"]) == 0
    assert "Label &lt;b&gt;March&lt;/b&gt; &amp; April" in offered.text
    done = again.post("/requests", data=hidden(offered.text), headers=OURS)
    assert done.status_code == 303, done.text
    assert asked(world, form["dataset"]) == 1


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}],
    ids=["an old browser", "another site", "a neighbour", "typed"],
)
def test_kept_form_from_another_site_is_refused(
    world: World, browser_of: BrowserOf, form: dict[str, str], headers: dict[str, str]
) -> None:
    signed = browser_of(world.person())
    nobody = Browser(signed.url, {"Accept": "text/html"})
    form.pop("vendor")
    for browser, status in ((signed, 403), (nobody, 303)):
        answer = browser.post("/requests", data={**form, "csrf_token": "forged"}, headers=headers)
        assert answer.status_code == status and form["role"] not in answer.text
    nobody.close()
    assert asked(world, form["dataset"]) == 0


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/sources/new", {"name": "Acme", "client_secret": "secret-canary"}),
        ("/settings/notices", {"name": "Chat", "target": "https://hooks.example.org/secret-canary"}),
        ("/security/recover", {"recovery_code": "secret-canary", "name": "x"}),
        ("/confirm", {"code": "secret-canary", "next": "/"}),
        ("/oauth/authorize", {"state": "secret-canary", "client_id": "guestkey-cli"}),
        ("/grants/gr_x/credential", {"slice": "full", "public_key": "-----BEGIN PRIVATE KEY-----\nsecret-canary"}),
        ("/grants/gr_x/credential", {"slice": "full", "public_key": "PrivateKey = secret-canary"}),
    ],
)
def test_kept_form_contains_no_secrets_or_codes(
    world: World, browser_of: BrowserOf, path: str, fields: dict[str, str]
) -> None:
    signed = world.person(roles=("admin",))
    browser = browser_of(signed)
    with world.database.transaction() as tx:
        assert tx.scalars(select(Session.id).where(Session.person_id == signed.id)).first()
    for cookie in (browser.cookies[SESSION_COOKIE], "x" * 43):
        browser.cookies[SESSION_COOKIE] = cookie
        answer = browser.post(path, data={**fields, "csrf_token": "stale"}, headers=OURS)
        assert answer.status_code in (303, 401, 403) and "secret-canary" not in answer.text
