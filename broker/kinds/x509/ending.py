"""Ending certificates: revoked by serial, then looked for on a list made afterwards and asked about by OCSP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from cryptography import x509

from broker.base.errors import BackendDown
from broker.keystore.pki import checked_serial
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.values import LeaseToEnd, NotEnded
from broker.kinds.x509.certificates import (
    Unsound,
    lease_certificate,
    ocsp_question,
    ocsp_says_revoked,
    read_certificate,
    serial_of,
)
from broker.kinds.x509.stored_certificates import Incomplete, authority, fresh_crl, malformed_answer, stored

_HANDS = 4
_REVOKED = "openbao: revoked, on the revocation list and by OCSP"
_EXPIRED = "openbao: the certificate has expired"
_NEVER = "openbao: no certificate carries this lease"
# By serial; None for one that OpenBao keeps no longer.
_Held = Mapping[str, x509.Certificate | None]


def end_many(vault: Vault, leases: Sequence[LeaseToEnd]) -> dict[str, str | Exception]:
    """By lease id what confirmed its end, or why it is not confirmed. One new revocation list does for all."""
    with ThreadPoolExecutor(_HANDS) as pool:
        found = pool.map(lambda one: _revoked(vault, one), leases)
        held = dict(zip((lease.id for lease in leases), found, strict=True))
        if not any(isinstance(one, Mapping) and one for one in held.values()):
            return {id_: one if isinstance(one, Exception) else _NEVER for id_, one in held.items()}
        try:
            crl = fresh_crl(vault)
        except (BackendDown, VaultRefused) as error:
            return dict.fromkeys(held, error)
        asked = pool.map(lambda one: _confirmed(vault, one, held[one.id], crl), leases)
        return dict(zip(held, asked, strict=True))


def _revoked(vault: Vault, lease: LeaseToEnd) -> _Held | Exception:
    try:
        serials = [lease.backend_lease_id] if lease.backend_lease_id else stored(vault).of_lease(vault, lease.handle)
        return {serial: _revoke(vault, serial, lease.handle) for serial in serials}
    except Incomplete:
        return BackendDown(
            "The key store keeps more certificates than could be read at once.",
            backend="openbao",
            advice="It is tried again, and goes on where it stopped.",
        )
    except (NotEnded, BackendDown, VaultRefused) as error:
        return error


def _revoke(vault: Vault, serial: str, handle: str) -> x509.Certificate | None:
    """Revoke a certificate, once it is seen to be the lease's own."""
    try:
        found = vault.certificate(checked_serial(serial))
        certificate = read_certificate(found.certificate) if found else None
    except ValueError as error:
        raise NotEnded("what was recorded is no serial") from error
    except Unsound as error:
        raise malformed_answer() from error
    if found is None or certificate is None:
        return None
    if lease_certificate(certificate).handle != handle or serial_of(certificate) != serial:
        raise NotEnded(f"certificate {serial} is not this lease's")
    if found.revoked_at is None:
        vault.revoke_certificate(serial)
    return certificate


def _confirmed(
    vault: Vault, lease: LeaseToEnd, held: _Held | Exception, crl: x509.CertificateRevocationList
) -> str | Exception:
    if isinstance(held, Exception):
        return held
    try:
        answers = {_ended(vault, serial, found, crl, lease) for serial, found in held.items()}
    except (NotEnded, BackendDown, VaultRefused) as error:
        return error
    return _REVOKED if _REVOKED in answers else _EXPIRED if answers else _NEVER


def _ended(
    vault: Vault,
    serial: str,
    certificate: x509.Certificate | None,
    crl: x509.CertificateRevocationList,
    lease: LeaseToEnd,
) -> str:
    """What confirms that one certificate opens nothing any more, by the clock the list was made with.

    Raises:
        NotEnded: list or OCSP do not say so.
        BackendDown: OCSP does not answer sensibly.
    """
    if certificate is None:
        # OpenBao drops certificates some time after their end, never before.
        if lease.expires_at is None or lease.expires_at > crl.last_update_utc:
            raise NotEnded(f"OpenBao does not show certificate {serial}, which cannot have expired")
        return _EXPIRED
    if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None:
        if certificate.not_valid_after_utc <= crl.last_update_utc:
            return _EXPIRED
        raise NotEnded(f"the revocation list does not name certificate {serial}")
    try:
        if not ocsp_says_revoked(vault.ocsp(ocsp_question(certificate, authority(vault))), certificate):
            raise NotEnded(f"OCSP does not call certificate {serial} revoked")
    except Unsound as error:
        raise malformed_answer() from error
    return _REVOKED
