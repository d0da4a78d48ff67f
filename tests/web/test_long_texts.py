"""Nothing that is typed is cut in silence: no field has a greatest length, and what is too long is refused and kept."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from broker.web import portal
from tests.support.browser import Browser
from tests.support.world import World
from tests.web.conftest import BrowserOf

LONG = "x" * 3000
_TEMPLATES = Path(portal.__file__).parents[1] / "templates"
SOURCE = {"name": "Acme", "issuer": "https://id.example.org", "client_id": "guestkey"}
HOOK = {"kind": "webhook", "name": "Desk", "target": "https://hooks.example.org/x", "topic-alarms": "on"}
# The address of a form, a field of it that somebody types into, and its other fields.
FIELDS = (
    ("/vendors/new", "name", {}),
    ("/teams/new", "name", {"vendor": "{vendor}"}),
    ("/services", "name", {"vendor": "{vendor}"}),
    *(("/sources/new", name, SOURCE) for name in ("name", "issuer", "client_id", "other_audiences")),
    ("/sources/new", "client_secret", SOURCE),
    ("/sources/new", "required_claims", SOURCE),
    ("/sources/{source}/trust-mfa", "values", {}),
    *(("/settings/notices", name, HOOK) for name in ("name", "target")),
    ("/invite", "label", {"source": "{source}"}),
    *(("/datasets/{slug}/change", name, {"title": "Trials"}) for name in ("title", "description", "labels")),
    ("/datasets/{slug}/change", "kept_until", {"title": "Trials"}),
    ("/grants/new", "until", {"dataset": "{slug}", "role": "annotator", "holder": "person:{guest}"}),
    ("/security/notices", "digest_zone", {"digest_hour": "8"}),
)


def test_form_fields_have_no_maxlength() -> None:
    """A browser cuts what is pasted into such a field, a secret or a value of a filter for one."""
    pages = sorted(_TEMPLATES.rglob("*.html"))
    assert len(pages) > 100
    assert [page.name for page in pages if "maxlength=" in page.read_text()] == []


@pytest.fixture
def house(world: World, browser_of: BrowserOf) -> tuple[Browser, dict[str, str]]:
    """An admin's browser, and what there is to fill into forms."""
    vendor = world.vendor()
    admin = world.person(roles=("admin",))
    dataset = world.dataset(vendor, owner=admin)
    guest = world.person(vendor)
    ids = {"vendor": vendor.id, "slug": dataset.slug, "guest": guest.id, "source": world.source(vendor).id}
    return browser_of(admin), ids


@pytest.mark.parametrize(("path", "name", "beside"), FIELDS, ids=[f"{path} {name}" for path, name, _ in FIELDS])
def test_too_long_text_is_refused_and_kept_in_the_form(
    house: tuple[Browser, dict[str, str]], path: str, name: str, beside: dict[str, str]
) -> None:
    browser, ids = house
    typed = f"hd={LONG}" if name == "required_claims" else LONG
    filled = {field: value.format(**ids) for field, value in beside.items()} | {name: typed}
    refused = browser.post(path.format(**ids), data={**filled, "csrf_token": browser.csrf})
    assert refused.status_code in (400, 409, 422), (refused.status_code, refused.headers.get("location"))
    assert 'role="alert"' in refused.text
    # A secret is never sent back.
    assert (typed in html.unescape(refused.text)) is (name not in ("client_secret", "target"))
