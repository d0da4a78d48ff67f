"""Getting a certificate as a guest does: by the API, and in the portal."""

from __future__ import annotations

import html
import re
import secrets

import pytest
from cryptography import x509

from broker.kinds.discovery import kinds
from broker.models import Dataset, Grant
from broker.web.portal.credentials import _typed
from tests.support.gateway import NAME, guest
from tests.support.world import Signed, World
from tests.web.conftest import BrowserOf, ClientOf
from tests.web.test_edge import is_problem

BINDING = {"connection": NAME}
GUEST = guest()


@pytest.fixture
def scene(world: World) -> tuple[Signed, Dataset, Grant]:
    """A vendor's engineer with a grant on a dataset behind a gateway."""
    vendor = world.vendor()
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": BINDING})
    signed = world.person(vendor)
    return signed, dataset, world.grant(dataset, signed)


def test_certificate_is_returned_once_for_the_given_key(
    scene: tuple[Signed, Dataset, Grant], client_of: ClientOf, world: World
) -> None:
    signed, dataset, _ = scene
    client, key = client_of(signed), {"Idempotency-Key": secrets.token_hex(8)}
    body = {"dataset": dataset.slug, "public_key": GUEST.request}
    made = client.post("/leases", json=body, headers=key)
    assert made.status_code == 201, made.text
    values = made.json()["credential"]
    certificate = x509.load_pem_x509_certificate(values["certificate"].encode())
    assert certificate.public_key() == GUEST.key.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(values["chain"].encode()))
    assert set(values) == {"certificate", "chain", "serial", "gateway", "host", "port", "expires_at"}
    again = client.post("/leases", json=body, headers=key).json()
    assert again["lease"]["id"] == made.json()["lease"]["id"] and again["credential"] is None
    other = client.post("/leases", json={**body, "public_key": guest().request}, headers=key)
    is_problem(other, 409, "conflict")
    world.wait_sweeping(_revoked(client_of, signed, made.json()["lease"]["id"]), "revoked")


def _revoked(client_of: ClientOf, signed: Signed, lease_id: str) -> str:
    assert client_of(signed).post(f"/leases/{lease_id}/revoke", json={"reason": "done"}).status_code in (200, 202, 204)
    return lease_id


def test_invalid_signing_request_is_refused_and_nothing_is_issued(
    scene: tuple[Signed, Dataset, Grant], client_of: ClientOf, capfd: pytest.CaptureFixture[str], world: World
) -> None:
    signed, dataset, _ = scene
    private = guest().key_pem.decode()
    for sent, reason in ((private, "private key"), ("-----BEGIN CERTIFICATE-----\nA", "a certificate"), ("x", "PEM")):
        answer = client_of(signed).post("/leases", json={"dataset": dataset.slug, "public_key": sent})
        problem = is_problem(answer, 422, "invalid")
        assert reason in problem["detail"] and "openssl" in problem["advice"]
        assert private.splitlines()[1] not in answer.text
    missing = client_of(signed).post("/leases", json={"dataset": dataset.slug})
    assert missing.status_code == 422 and "signing request" in missing.text
    assert private.splitlines()[1] not in "".join(capfd.readouterr())
    assert client_of(signed).get("/leases").json()["items"] == []


def test_portal_keeps_the_certificates_line_breaks(scene: tuple[Signed, Dataset, Grant], browser_of: BrowserOf) -> None:
    signed, _, grant = scene
    browser, path = browser_of(signed), f"/grants/{scene[2].id}/credential"
    page = browser.get(path).text
    assert "openssl req" in page and grant.id in page
    typed = f"guestkey get {scene[1].slug} --slice deidentified --kind x509 --format pem --out tls/"
    assert typed in page, "without kind and format the command would be refused"
    form = {"form_id": secrets.token_urlsafe(24), "slice": "deidentified", "lifetime": "300", "kind": "x509"}
    private = guest().key_pem.decode()
    refused = browser.post(path, data={**form, "csrf_token": browser.csrf, "public_key": private})
    assert refused.status_code == 422 and "Delete it" in html.unescape(refused.text)
    assert private.splitlines()[1] not in refused.text
    shown = browser.post(path, data={**form, "csrf_token": browser.csrf, "public_key": GUEST.request})
    assert shown.status_code == 200, shown.text
    assert shown.text.count(typed) == 2, "as the first way to use it, and at the end of the page"
    again = browser.post(path, data={**form, "csrf_token": browser.csrf, "public_key": GUEST.request})
    assert "already shown" in again.text and typed in again.text
    found = re.search(r'<pre id="value-certificate">(.*?)</pre>', shown.text, re.DOTALL)
    assert found is not None
    certificate = x509.load_pem_x509_certificate(html.unescape(found[1]).encode())
    assert certificate.public_key() == GUEST.key.public_key()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("s3", "guestkey run trials --slice labels --kind s3 --action write -- YOUR-TOOL"),
        ("ssh", "guestkey connect trials --slice labels --action write"),
    ],
)
def test_command_shown_for_a_write_credential_writes(kind: str, said: str) -> None:
    assert _typed(kinds[kind], "trials", "labels", "write") == said
