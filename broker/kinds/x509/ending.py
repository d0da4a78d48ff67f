"""Ending certificates: revoked by serial, then looked for on a list made afterwards and asked about by OCSP.

Which OpenBao keeps is listed at each look; each is read once, and remembered while it is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Lock
from time import monotonic
from weakref import WeakKeyDictionary

from cryptography import x509

from broker.base.errors import BackendDown
from broker.keystore.responses import checked_serial
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.base import keystore_failed, refused_as
from broker.kinds.values import LeaseToEnd, NotEnded
from broker.kinds.x509.certificates import (
    LeaseCertificate,
    Unsound,
    lease_certificate,
    ocsp_question,
    ocsp_says_revoked,
    read_certificate,
    read_crl,
    serial_of,
)

# A read is about a millisecond: this many fit in a few seconds, and what is left is read in the next round.
MOST_READ = 2000
_HANDS = 4
_REMEMBERED_SECONDS = 60.0
_NOTHING = LeaseCertificate("", "", datetime.max.replace(tzinfo=UTC))


_REVOKED = "openbao: revoked, on the revocation list and by OCSP"
_EXPIRED = "openbao: the certificate has expired"
_NEVER = "openbao: no certificate carries this lease"
# By serial; None for one that OpenBao keeps no longer.
_Held = Mapping[str, x509.Certificate | None]


class StoredCertificates:
    """What one identity has seen of OpenBao's certificates. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: dict[str, LeaseCertificate] = {}

    def living(self, vault: Vault) -> tuple[dict[str, LeaseCertificate], bool]:
        """Certificates of any installation's leases, by serial, neither expired nor revoked; and whether these are all.

        Expiry goes by OpenBao's clock. The list in force is asked, not a fresh one: what was revoked since it was made
        is of a lease that is being ended.
        """
        known, complete = self._look(vault)
        now, crl = vault.clock(), read_crl(vault.crl(), authority(vault))
        revoked = {entry.serial_number for entry in crl}
        found = {
            serial: said
            for serial, said in sorted(known.items())
            if said.handle and said.not_after > now and int(serial.replace(":", ""), 16) not in revoked
        }
        return found, complete

    def of_lease(self, vault: Vault, handle: str) -> list[str]:
        """The serials of every certificate kept that carries a lease's handle, expired and revoked ones too.

        Raises:
            BackendDown: OpenBao does not answer, or not sensibly; or not all could be read at once.
        """
        known, complete = self._look(vault)
        if not complete:
            more = "The key store keeps more certificates than could be read at once."
            raise keystore_failed(more, "It is tried again, and goes on where it stopped.")
        return sorted(serial for serial, said in known.items() if said.handle == handle)

    def _look(self, vault: Vault) -> tuple[dict[str, LeaseCertificate], bool]:
        listed = set(vault.certificate_serials())
        with self._lock:
            self._told = {serial: said for serial, said in self._told.items() if serial in listed}
            unknown = sorted(listed - self._told.keys())
        with ThreadPoolExecutor(_HANDS) as pool:
            read = list(pool.map(lambda serial: _read(vault, serial), unknown[:MOST_READ]))
        with self._lock:
            self._told.update(zip(unknown, read, strict=False))
            known = {serial: said for serial, said in self._told.items() if serial in listed}
        return known, len(unknown) <= MOST_READ


_STORED: WeakKeyDictionary[Vault, StoredCertificates] = WeakKeyDictionary()
_AUTHORITIES: WeakKeyDictionary[Vault, tuple[float, x509.Certificate | None]] = WeakKeyDictionary()


def _read(vault: Vault, serial: str) -> LeaseCertificate:
    try:
        found = vault.certificate(checked_serial(serial))
        # None: tidied away between the list and this.
        return _NOTHING if found is None else lease_certificate(read_certificate(found.certificate))
    except ValueError as error:
        raise Unsound("no serial") from error


def authority(vault: Vault) -> x509.Certificate:
    """The certificate guests' certificates are signed with; remembered for a minute.

    Raises:
        BackendDown: OpenBao does not answer, not sensibly, or was set up without one.
    """
    at, known = _AUTHORITIES.get(vault, (0.0, None))
    if known is not None and monotonic() - at < _REMEMBERED_SECONDS:
        return known
    no_authority = "The key store has no authority that signs certificates yet."
    with refused_as(no_authority, "The operator makes it: deploy/openbao/upgrade."):
        known = read_certificate(vault.ca_certificate())
    _AUTHORITIES[vault] = monotonic(), known
    return known


def stored(vault: Vault) -> StoredCertificates:
    """What this identity has seen so far."""
    return _STORED.setdefault(vault, StoredCertificates())


def end_many(vault: Vault, leases: Sequence[LeaseToEnd]) -> dict[str, str | Exception]:
    """By lease id what confirmed its end, or why it is not confirmed. One new revocation list does for all."""
    with ThreadPoolExecutor(_HANDS) as pool:
        found = pool.map(lambda one: _revoked(vault, one), leases)
        held = dict(zip((lease.id for lease in leases), found, strict=True))
        if not any(isinstance(one, Mapping) and one for one in held.values()):
            return {id_: one if isinstance(one, Exception) else _NEVER for id_, one in held.items()}
        try:
            crl = read_crl(vault.fresh_crl(), authority(vault))
        except (BackendDown, VaultRefused) as error:
            return dict.fromkeys(held, error)
        asked = pool.map(lambda one: _confirmed(vault, one, held[one.id], crl), leases)
        return dict(zip(held, asked, strict=True))


def _revoked(vault: Vault, lease: LeaseToEnd) -> _Held | Exception:
    try:
        serials = [lease.backend_lease_id] if lease.backend_lease_id else stored(vault).of_lease(vault, lease.handle)
        return {serial: _revoke(vault, serial, lease.handle) for serial in serials}
    except (NotEnded, BackendDown, VaultRefused) as error:
        return error


def _revoke(vault: Vault, serial: str, handle: str) -> x509.Certificate | None:
    """Revoke a certificate, once it is seen to be the lease's own."""
    try:
        found = vault.certificate(checked_serial(serial))
        certificate = read_certificate(found.certificate) if found else None
    except ValueError as error:
        raise NotEnded("what was recorded is no serial") from error
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
    """What confirms that one certificate opens nothing any more, by the clock the list was made with."""
    if certificate is None:
        # OpenBao drops certificates some time after their end, never before.
        if lease.expires_at is None or lease.expires_at > crl.last_update_utc:
            raise NotEnded(f"OpenBao does not show certificate {serial}, which cannot have expired")
        return _EXPIRED
    if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None:
        if certificate.not_valid_after_utc <= crl.last_update_utc:
            return _EXPIRED
        raise NotEnded(f"the revocation list does not name certificate {serial}")
    if not ocsp_says_revoked(vault.ocsp(ocsp_question(certificate, authority(vault))), certificate):
        raise NotEnded(f"OCSP does not call certificate {serial} revoked")
    return _REVOKED
