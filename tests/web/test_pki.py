"""What gateways check certificates by, as handed on by a replica: whole, signed, or not at all."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from broker.base.settings import Settings
from broker.keystore.vault import VaultRefused
from broker.kinds.values import LeaseToEnd
from broker.kinds.x509.certificates import ocsp_question
from broker.models import Lease
from broker.runtime.parts import Parts, vault_of
from broker.web.pki import LONGEST_QUESTION, OVERDUE
from tests.support.certificates import BINDING, GUEST, KIND, admitting
from tests.support.freezing import freeze
from tests.support.gateway import Authority
from tests.support.world import World
from tests.web.conftest import Replica
from tests.web.test_edge import is_problem, running

OCSP = {"Content-Type": "application/ocsp-request"}


@pytest.fixture
def fresh(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """A replica that keeps nothing from before."""
    with running(settings, parts) as replica:
        yield replica


@pytest.fixture
def certificate(world: World) -> tuple[x509.Certificate, LeaseToEnd]:
    """A guest's certificate, and what ends it."""
    one = admitting(world)()
    return x509.load_pem_x509_certificate(one.pem.encode()), one.to_end()


def test_ca_and_crl_are_public(fresh: Replica, world: World) -> None:
    ca = httpx.get(f"{fresh.url}/pki/ca.pem")
    der, pem = httpx.get(f"{fresh.url}/pki/crl"), httpx.get(f"{fresh.url}/pki/crl.pem")
    assert (ca.status_code, der.status_code, pem.status_code) == (200, 200, 200)
    authority = x509.load_pem_x509_certificate(ca.content)
    crl = x509.load_der_x509_crl(der.content)
    assert crl == x509.load_pem_x509_crl(pem.content)
    assert crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert crl.next_update_utc is not None
    assert crl.next_update_utc - crl.last_update_utc <= timedelta(hours=1)
    assert der.headers["Content-Type"] == "application/pkix-crl"
    assert len(der.content) < 100_000


def test_unchanged_crl_is_answered_not_modified(fresh: Replica) -> None:
    first = httpx.get(f"{fresh.url}/pki/crl.pem")
    assert first.headers["Cache-Control"] == "no-cache"
    known = httpx.get(f"{fresh.url}/pki/crl.pem", headers={"If-None-Match": first.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


def _status(answer: httpx.Response) -> ocsp.OCSPCertStatus:
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/ocsp-response"
    assert answer.headers["Cache-Control"] == "no-store"
    return ocsp.load_der_ocsp_response(answer.content).certificate_status


def test_ocsp_answers_by_post_and_by_address(
    fresh: Replica, world: World, certificate: tuple[x509.Certificate, LeaseToEnd]
) -> None:
    authority = x509.load_pem_x509_certificate(httpx.get(f"{fresh.url}/pki/ca.pem").content)
    question = ocsp_question(certificate[0], authority)
    address = f"{fresh.url}/pki/ocsp/{quote(base64.b64encode(question).decode(), safe='')}"

    def ask() -> list[ocsp.OCSPCertStatus]:
        posted = httpx.post(f"{fresh.url}/pki/ocsp", content=question, headers=OCSP)
        return [_status(posted), _status(httpx.get(address))]

    assert ask() == [ocsp.OCSPCertStatus.GOOD] * 2
    KIND.end(world.ender.vault, certificate[1])
    assert ask() == [ocsp.OCSPCertStatus.REVOKED] * 2


@pytest.mark.parametrize("question", [b"", b"hello", b"\x30\x00", b"x" * (LONGEST_QUESTION + 1)])
def test_invalid_ocsp_request_is_refused(fresh: Replica, question: bytes) -> None:
    posted = httpx.post(f"{fresh.url}/pki/ocsp", content=question, headers=OCSP)
    is_problem(posted, 422, "invalid")


@pytest.mark.parametrize("text", ["%25", "aGVsbG8=", "a", "..", "aGVs bG8="])
def test_invalid_ocsp_request_in_the_path_is_refused(fresh: Replica, text: str) -> None:
    assert httpx.get(f"{fresh.url}/pki/ocsp/{text}").status_code in (404, 405, 422)


def test_unreachable_openbao_gives_503_for_crl_and_ocsp(
    fresh: Replica, world: World, certificate: tuple[x509.Certificate, LeaseToEnd]
) -> None:
    authority = x509.load_pem_x509_certificate(httpx.get(f"{fresh.url}/pki/ca.pem").content)
    question = ocsp_question(certificate[0], authority)
    world.stack.bao.stop()
    try:
        # A replica keeps the list it hands on for a second.
        time.sleep(1.1)
        is_problem(httpx.get(f"{fresh.url}/pki/crl.pem", timeout=20), 503, "backend_down")
        is_problem(httpx.post(f"{fresh.url}/pki/ocsp", content=question, headers=OCSP, timeout=20), 503, "backend_down")
    finally:
        world.stack.bao.start()


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\x30\x03\x02\x01\x01"])
def test_invalid_crl_is_not_passed_on(fresh: Replica, answer: bytes) -> None:
    with patch.object(fresh.parts.vault, "crl", return_value=answer):
        is_problem(httpx.get(f"{fresh.url}/pki/crl"), 503, "backend_down")


def test_missing_ca_names_the_command_that_creates_it(settings: Settings, parts: Parts) -> None:
    bare = replace(parts, vault=vault_of(settings, "issuer"))
    with patch.object(bare.vault, "ca_certificate", side_effect=VaultRefused), running(settings, bare) as replica:
        problem = is_problem(httpx.get(f"{replica.url}/pki/ca.pem"), 503, "backend_down")
    assert "upgrade" in problem["advice"]


def test_crl_of_another_ca_is_not_passed_on(fresh: Replica) -> None:
    forged = x509.load_pem_x509_crl(Authority().list()).public_bytes(Encoding.DER)
    with patch.object(fresh.parts.vault, "crl", return_value=forged):
        is_problem(httpx.get(f"{fresh.url}/pki/crl"), 503, "backend_down")


def test_gateways_have_their_own_rate_limit(settings: Settings, parts: Parts) -> None:
    with running(settings, parts, rate_limit_per_minute=12, rate_limit_anonymous_per_minute=2) as replica:
        seen = [httpx.get(f"{replica.url}/pki/crl.pem").status_code for _ in range(14)]
        assert seen[:12] == [200] * 12 and seen[13] == 429
        assert httpx.get(f"{replica.url}/api/v1/kinds").status_code == 401


def test_rate_limited_gateway_can_still_fetch_the_crl(settings: Settings, parts: Parts) -> None:
    """Whoever connects to it in a loop makes it ask by OCSP, and must not keep the list from it that ends them."""
    with running(settings, parts, rate_limit_per_minute=3) as replica:
        asked = [httpx.post(f"{replica.url}/pki/ocsp", content=b"x", headers=OCSP).status_code for _ in range(5)]
        assert asked[-1] == 429
        assert httpx.get(f"{replica.url}/pki/crl.pem").status_code == 200


def test_crl_answer_reports_overdue_leases(fresh: Replica, world: World) -> None:
    """A certificate that has run out cannot be put on the list any more, so gateways must end what is open."""

    def said() -> bool:
        # A replica keeps the list it hands on for a second.
        time.sleep(1.1)
        return OVERDUE in httpx.get(f"{fresh.url}/pki/crl.pem").headers

    # Of other tests.
    world.sweep()
    assert not said()
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": BINDING})
    world.grant(dataset, signed)
    handed = world.issue(signed, dataset, public_key=GUEST.request)
    assert not said()
    world.change(Lease, handed.lease.id, expires_at=world.now() - timedelta(minutes=1))
    assert said()
    world.sweep()
    assert not said()


def test_pki_relay_allows_only_crl_and_ocsp(world: World) -> None:
    with pytest.raises(VaultRefused):
        world.parts.vault._fetch("pki/certs?list=true")


def test_ocsp_flood_with_hanging_openbao_does_not_delay_others(
    fresh: Replica, world: World, certificate: tuple[x509.Certificate, LeaseToEnd]
) -> None:
    """Nobody needs to sign in to ask here; those who have must be able to end leases meanwhile."""
    authority = x509.load_pem_x509_certificate(httpx.get(f"{fresh.url}/pki/ca.pem").content)
    question = ocsp_question(certificate[0], authority)
    signed = world.person(world.vendor())

    def ask(_: int) -> int:
        return httpx.post(f"{fresh.url}/pki/ocsp", content=question, headers=OCSP, timeout=60).status_code

    freeze(world.stack.bao)
    try:
        with ThreadPoolExecutor(120) as pool:
            asked = [pool.submit(ask, number) for number in range(120)]
            time.sleep(0.5)
            began = time.monotonic()
            me = httpx.get(f"{fresh.url}/api/v1/me", headers={"Authorization": f"Bearer {signed.token}"}, timeout=60)
            took = time.monotonic() - began
            freeze(world.stack.bao, thaw=True)
            statuses = {one.result() for one in asked}
    finally:
        freeze(world.stack.bao, thaw=True)
    assert me.status_code == 200
    assert statuses <= {200, 503}
    # Who asks OpenBao waits for longer before it counts as silent.
    assert took < 4, took
