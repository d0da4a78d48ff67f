"""Certificates of guests: what OpenBao lets a lease's token have signed, what is believed of its answers, the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import VaultRefused
from broker.kinds.names import policy_of, role_of
from broker.kinds.values import BoundSlice, Issued, LeaseToEnd, NotEnded
from broker.kinds.x509 import ending as x509_ending
from broker.kinds.x509.certificates import common_name, uri
from broker.kinds.x509.ending import end_many
from broker.models import Lease, Slice
from broker.runtime.parts import vault_of
from tests.support.certificates import BINDING, GUEST, KIND, Placed, self_signed
from tests.support.gateway import NAME
from tests.support.registering import register_waiting
from tests.support.world import World


def _issued(world: World, placed: Placed) -> tuple[Issued, x509.Certificate]:
    issued = KIND.issue(world.parts.vault, placed.token, placed.lease)
    return issued, x509.load_pem_x509_certificate(issued.values["certificate"].encode())


def test_certificate_names_lease_gateway_slice_and_action_only(world: World, placed: Placed) -> None:
    issued, certificate = _issued(world, placed)
    lease = placed.lease
    assert certificate.public_key() == GUEST.key.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={common_name(lease.handle)},OU={lease.slice_id}:read,O={NAME}"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(uri(lease.handle))]
    assert uri(lease.handle) == f"spiffe://guestkey/lease/{lease.handle}"
    assert timedelta(0) < certificate.not_valid_after_utc - lease.expires_at < timedelta(seconds=70)
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.values["host"] == "localhost" and issued.values["gateway"] == NAME
    base = f"{str(world.settings.public_url).rstrip('/')}/pki"
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert points[0].full_name == [x509.UniformResourceIdentifier(f"{base}/crl")]
    where = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert {item.access_location.value for item in where} == {f"{base}/ocsp", f"{base}/ca.pem"}


@pytest.mark.parametrize(
    "wish",
    [
        {"alt_names": f"other.{'lease.guestkey.internal'}"},
        {"not_after": "2035-01-01T00:00:00Z"},
        {"common_name": "root"},
        {"common_name": "l1.lease.guestkey.internal.evil.example"},
        {"uri_sans": "spiffe://elsewhere/lease/x"},
        {"uri_sans": "spiffe://guestkey/lease/x,https://evil.example"},
        {"ip_sans": "127.0.0.1"},
        {"other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:root"},
        {"format": "pem_bundle"},
        {"remove_roots_from_chain": True},
    ],
    ids=lambda wish: next(iter(wish)),
)
def test_lease_token_can_sign_only_its_certificate(world: World, placed: Placed, wish: Mapping[str, Any]) -> None:
    body = {
        "csr": GUEST.request,
        "common_name": common_name(placed.lease.handle),
        "uri_sans": uri(placed.lease.handle),
        "ttl": "60s",
    }
    path = f"pki/sign/{role_of(placed.lease.slice_id, 'read')}"
    assert world.parts.vault._write_as(placed.token, path, body)
    with pytest.raises(VaultRefused):
        world.parts.vault._write_as(placed.token, path, {**body, **wish})


def test_read_token_has_no_other_path(world: World, placed: Placed) -> None:
    body = {"csr": GUEST.request, "common_name": "x.lease.guestkey.internal"}
    short = placed.lease.slice_id.removeprefix("sl_")
    for path in (f"pki/sign/gk-{short}-write", f"pki/issue/gk-{short}-read", "pki/sign-verbatim", "pki/revoke"):
        with pytest.raises(VaultRefused):
            world.parts.vault._write_as(placed.token, path, body)


def test_issuer_identity_cannot_sign_or_revoke_certificates(world: World, placed: Placed) -> None:
    issued, _ = _issued(world, placed)
    body = {"csr": GUEST.request, "common_name": "x.lease.guestkey.internal"}
    with pytest.raises(VaultRefused):
        world.parts.vault._write(f"pki/sign/{role_of(placed.lease.slice_id, 'read')}", body)
    with pytest.raises(VaultRefused):
        world.parts.vault.revoke_certificate(issued.values["serial"])
    with pytest.raises(VaultRefused):
        world.ender.vault._write(f"pki/sign/{role_of(placed.lease.slice_id, 'read')}", body)


def test_the_authoritys_own_key_is_refused(world: World, placed: Placed) -> None:
    own, vault = self_signed(GUEST.key), vault_of(world.settings, "issuer")
    with (
        patch.object(vault, "ca_certificate", return_value=own),
        patch.object(vault, "sign_certificate", side_effect=AssertionError("nothing is to be signed")),
        pytest.raises(Invalid) as refused,
    ):
        KIND.issue(vault, placed.token, placed.lease)
    assert "authority's own key" in refused.value.detail


def test_certificate_longer_than_max_ttl_is_detected(world: World, placed: Placed) -> None:
    lease = replace(placed.lease, expires_at=placed.lease.issued_at + timedelta(hours=30))
    made = world.parts.vault.sign_certificate(
        placed.token,
        role_of(lease.slice_id, "read"),
        lease.public_key,
        common_name=common_name(lease.handle),
        uri=uri(lease.handle),
        ttl=lease.lifetime,
    )
    certificate = x509.load_pem_x509_certificate(made.certificate.encode())
    assert certificate.not_valid_after_utc < lease.expires_at - timedelta(hours=4)
    with pytest.raises(BackendDown):
        KIND.issue(world.parts.vault, placed.token, lease)


# -- the end --------------------------------------------------------------------------------------------------------


def test_certificate_without_a_recorded_serial_is_found_by_lease(world: World, placed: Placed) -> None:
    issued, _ = _issued(world, placed)
    again = KIND.issue(world.parts.vault, placed.token, placed.lease)
    assert "revoked" in KIND.end(world.ender.vault, placed.to_end())
    for serial in (issued.values["serial"], again.values["serial"]):
        stored = world.ender.vault.certificate(serial)
        assert stored is not None and stored.revoked_at is not None


def test_second_certificate_of_a_lease_is_listed_until_ended(world: World, placed: Placed) -> None:
    first, _ = _issued(world, placed)
    KIND.issue(world.parts.vault, placed.token, placed.lease)
    vault, tag, bounds = world.ender.vault, world.parts.tag, [BoundSlice(BINDING)]
    KIND.end(vault, placed.to_end(first.values["serial"]))
    seen = KIND.list_credentials(vault, tag, bounds).handles[placed.lease.handle]
    assert seen.backend_lease_id != first.values["serial"]
    KIND.end(vault, placed.to_end(seen.backend_lease_id))
    assert placed.lease.handle not in KIND.list_credentials(vault, tag, bounds).handles


def test_certificate_of_another_lease_is_not_revoked(world: World, placed: Placed) -> None:
    issued, _ = _issued(world, placed)
    other = replace(placed.to_end(issued.values["serial"]), handle=f"{world.parts.tag}-lother")
    for serial in (issued.values["serial"], "database/creds/x/y", "..", "accessor"):
        with pytest.raises(NotEnded):
            KIND.end(world.ender.vault, replace(other, backend_lease_id=serial))
    stored = world.ender.vault.certificate(issued.values["serial"])
    assert stored is not None and stored.revoked_at is None


def test_ca_certificate_is_not_revoked(world: World, placed: Placed) -> None:
    authority = x509.load_pem_x509_certificate(world.ender.vault.ca_certificate().encode())
    digits = f"{authority.serial_number:040x}"
    serial = ":".join(digits[at : at + 2] for at in range(0, 40, 2))
    assert world.ender.vault.certificate(serial) is not None
    with pytest.raises(NotEnded):
        KIND.end(world.ender.vault, placed.to_end(serial))


def test_certificates_of_another_installation_are_not_touched(world: World, placed: Placed) -> None:
    handle = f"zz9zz9-{placed.lease.id}"
    lease = replace(placed.lease, handle=handle)
    issued = KIND.issue(world.parts.vault, placed.token, lease)
    shown = KIND.list_credentials(world.ender.vault, world.parts.tag, [BoundSlice(BINDING)])
    assert handle not in shown.handles and "zz9zz9" in shown.other_tags
    KIND.end(world.ender.vault, replace(placed.to_end(issued.values["serial"]), handle=handle))


@pytest.fixture
def unrevoking(world: World) -> Iterator[None]:
    """A key store that says it revoked, and did not."""
    with patch.object(world.ender.vault, "revoke_certificate"):
        yield


def test_certificate_missing_from_the_crl_is_not_ended(world: World, placed: Placed, unrevoking: None) -> None:
    issued, _ = _issued(world, placed)
    with pytest.raises(NotEnded):
        KIND.end(world.ender.vault, placed.to_end(issued.values["serial"]))


def test_missing_certificate_counts_as_ended_only_after_its_expiry(world: World, placed: Placed) -> None:
    gone = placed.to_end("12:34:56")
    with pytest.raises(NotEnded):
        KIND.end(world.ender.vault, gone)
    assert "expired" in KIND.end(world.ender.vault, replace(gone, expires_at=world.now() - timedelta(hours=1)))


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\x30\x03\x02\x01\x01"])
def test_invalid_crl_confirms_nothing(world: World, placed: Placed, answer: bytes) -> None:
    issued, _ = _issued(world, placed)
    ending = placed.to_end(issued.values["serial"])
    with patch.object(world.ender.vault, "crl", return_value=answer), pytest.raises(BackendDown):
        KIND.end(world.ender.vault, ending)
    with patch.object(world.ender.vault, "ocsp", return_value=answer), pytest.raises(BackendDown):
        KIND.end(world.ender.vault, ending)
    assert "revoked" in KIND.end(world.ender.vault, ending)


def test_certificates_beyond_one_round_are_reported_and_read_next(
    world: World, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        KIND.issue(world.parts.vault, placed.token, placed.lease)
    monkeypatch.setattr(x509_ending, "MOST_READ", 2)
    fresh = vault_of(world.settings, "ender")
    shown = KIND.list_credentials(fresh, world.parts.tag, [BoundSlice(BINDING)])
    assert not shown.asked and "next round" in shown.unasked["openbao pki"]
    with pytest.raises(BackendDown):
        KIND.end(fresh, placed.to_end())
    monkeypatch.setattr(x509_ending, "MOST_READ", 100_000)
    assert placed.lease.handle in KIND.list_credentials(fresh, world.parts.tag, [BoundSlice(BINDING)]).handles
    KIND.end(fresh, placed.to_end())


def test_many_certificates_end_with_one_crl_or_individually_after_a_failure(world: World, placed: Placed) -> None:
    leases = []
    for number in range(5):
        lease = replace(placed.lease, id=f"{placed.lease.id}{number}", handle=f"{placed.lease.handle}{number}")
        issued = KIND.issue(world.parts.vault, placed.token, lease)
        leases.append(LeaseToEnd(lease.id, lease.handle, BINDING, issued.backend_lease_id))
    stranger = replace(leases[0], id="lstranger", handle=f"{world.parts.tag}-lstranger")
    never = replace(leases[0], id="lnever", handle=f"{world.parts.tag}-lnever", backend_lease_id=None)
    vault = world.ender.vault
    with patch.object(vault, "crl", wraps=vault.crl) as fetched:
        outcomes = end_many(vault, [*leases, stranger, never])
    assert fetched.call_count == 1
    assert isinstance(outcomes.pop("lstranger"), NotEnded)
    assert "no certificate" in str(outcomes.pop("lnever"))
    assert list(outcomes) == [lease.id for lease in leases]
    assert all("revocation list" in str(outcome) for outcome in outcomes.values())


def test_unreachable_openbao_confirms_no_end(world: World, placed: Placed) -> None:
    issued, _ = _issued(world, placed)
    ending = placed.to_end(issued.values["serial"])
    down = BackendDown("gone", backend="openbao")
    for name in ("certificate", "revoke_certificate", "fresh_crl", "ocsp"):
        with patch.object(world.ender.vault, name, side_effect=down), pytest.raises(BackendDown):
            KIND.end(world.ender.vault, ending)
    assert "revoked" in KIND.end(world.ender.vault, ending)


# -- through the story ----------------------------------------------------------------------------------------------


def test_certificate_is_issued_and_revoked_end_to_end(world: World) -> None:
    vendor = world.vendor()
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": BINDING})
    signed = world.person(vendor)
    world.grant(dataset, signed)
    handed = world.issue(signed, dataset, public_key=GUEST.request)
    assert handed.values is not None
    lease = world.lease(handed.lease.id)
    assert (lease.kind, lease.state, lease.backend_lease_id) == ("x509", "active", handed.values["serial"])
    world.change(Lease, lease.id, expires_at=world.now())
    world.wait_sweeping(lease.id, "expired")
    assert "revocation list" in world.lease(lease.id).confirmed_by


def test_a_certificate_made_before_a_crash_is_found_and_ended(world: World) -> None:
    vendor = world.vendor()
    dataset = world.dataset(vendor, kind="x509", slices={"deidentified": BINDING})
    signed = world.person(vendor)
    world.grant(dataset, signed)
    before = set(world.ender.vault.certificate_serials())
    killed = patch("broker.leases.issuing._activate", side_effect=BackendDown("killed", backend="postgresql"))
    with killed, pytest.raises(BackendDown):
        world.issue(signed, dataset, public_key=GUEST.request)
    (serial,) = set(world.ender.vault.certificate_serials()) - before
    with world.database.transaction() as tx:
        (lease,) = tx.query(Lease).filter(Lease.dataset_id == dataset.id).all()
    assert (lease.state, lease.backend_lease_id) == ("pending", None)
    world.change(Lease, lease.id, deadline=world.now())
    world.wait_sweeping(lease.id, "revoked")
    stored = world.ender.vault.certificate(serial)
    assert stored is not None and stored.revoked_at is not None


def test_expired_certificate_counts_as_ended(world: World, placed: Placed) -> None:
    lease = placed.lease
    made = world.parts.vault.sign_certificate(
        placed.token,
        role_of(lease.slice_id, "read"),
        lease.public_key,
        common_name=common_name(lease.handle),
        uri=uri(lease.handle),
        ttl=1,
    )
    time.sleep(2.5)
    assert lease.handle not in KIND.list_credentials(world.ender.vault, world.parts.tag, [BoundSlice(BINDING)]).handles
    assert [KIND.end(world.ender.vault, placed.to_end(made.serial)) for _ in range(2)] == [
        "openbao: the certificate has expired"
    ] * 2


def test_slice_with_an_unknown_gateway_fails_and_names_the_setting(world: World) -> None:
    dataset = world.dataset(kind="x509", slices={"deidentified": {"connection": "nowhere"}}, register=False)
    register_waiting(world)
    with world.database.transaction() as tx:
        found = tx.get_one(Slice, world.slice_id(dataset))
    assert found.state == "failed" and "GUESTKEY_X509_CONNECTIONS" in found.state_detail


def test_removed_slice_can_no_longer_sign(world: World, placed: Placed) -> None:
    setup = vault_of(world.settings, "setup")
    for _ in range(2):
        KIND.unregister(setup, placed.lease.slice_id, BoundSlice(BINDING))
    with pytest.raises(BackendDown):
        KIND.issue(world.parts.vault, placed.token, placed.lease)
    assert policy_of(placed.lease.slice_id, "read") in KIND.policies(placed.lease.slice_id, "read")


@pytest.mark.parametrize(
    "binding",
    [
        {},
        {"connection": ""},
        {"connection": "Records"},
        {"connection": "a,b"},
        {"connection": "a*"},
        {"connection": "a\n"},
        {"connection": "../x"},
        {"connection": 1},
        {"connection": "records", "schema": "x"},
        {"connection": "a" * 41},
    ],
)
def test_binding_without_a_gateway_is_refused(binding: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        KIND.check_binding(binding)
    assert refused.value.field.startswith("/binding")
