"""The certificates OpenBao keeps, by lease: listed at each look, each read once and remembered while it is listed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from time import monotonic
from weakref import WeakKeyDictionary

from cryptography import x509

from broker.base.errors import BackendDown
from broker.keystore.pki import checked_serial
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.x509.certificates import LeaseCertificate, Unsound, lease_certificate, read_certificate, read_crl

# A read is about a millisecond: this many fit in a few seconds, and what is left is read in the next round.
MOST_READ = 2000
_HANDS = 4
_REMEMBERED_SECONDS = 60.0
_NOTHING = LeaseCertificate("", "", datetime.max.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class LiveCertificate:
    """A certificate that whoever holds its key is let in with."""

    serial: str
    handle: str
    connection: str


class Incomplete(Exception):
    """More certificates are new than one look reads: ask again."""


class StoredCertificates:
    """What one identity has seen of OpenBao's certificates. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: dict[str, LeaseCertificate] = {}

    def living(self, vault: Vault) -> tuple[list[LiveCertificate], bool]:
        """Every certificate of a lease, any installation's, that is neither expired nor revoked; whether that is all.

        Expiry goes by OpenBao's clock. The list in force is asked, not a fresh one: what was revoked since it was made
        is of a lease that is being ended.

        Raises:
            BackendDown: OpenBao does not answer, or not sensibly.
        """
        known, complete = self._look(vault)
        now, crl = vault.clock(), _checked(vault.crl(), authority(vault))
        revoked = {entry.serial_number for entry in crl}
        found = [
            LiveCertificate(serial, said.handle, said.connection)
            for serial, said in sorted(known.items())
            if said.handle and said.not_after > now and int(serial.replace(":", ""), 16) not in revoked
        ]
        return found, complete

    def of_lease(self, vault: Vault, handle: str) -> list[str]:
        """The serials of every certificate kept that carries a lease's handle, expired and revoked ones too.

        Raises:
            Incomplete: not all could be read at once; the next call goes on.
            BackendDown: OpenBao does not answer, or not sensibly.
        """
        known, complete = self._look(vault)
        if not complete:
            raise Incomplete
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
    except (Unsound, ValueError) as error:
        raise malformed_answer() from error


def authority(vault: Vault) -> x509.Certificate:
    """The certificate guests' certificates are signed with; remembered for a minute.

    Raises:
        BackendDown: OpenBao does not answer, not sensibly, or was set up without one.
    """
    at, known = _AUTHORITIES.get(vault, (0.0, None))
    if known is not None and monotonic() - at < _REMEMBERED_SECONDS:
        return known
    try:
        known = read_certificate(vault.ca_certificate())
    except Unsound as error:
        raise malformed_answer() from error
    except VaultRefused as error:
        raise BackendDown(
            "The key store has no authority that signs certificates yet.",
            backend="openbao",
            advice="The operator makes it: deploy/openbao/upgrade.",
        ) from error
    _AUTHORITIES[vault] = monotonic(), known
    return known


def stored(vault: Vault) -> StoredCertificates:
    """What this identity has seen so far."""
    return _STORED.setdefault(vault, StoredCertificates())


def fresh_crl(vault: Vault) -> x509.CertificateRevocationList:
    """A revocation list made just now, checked.

    Raises:
        BackendDown: OpenBao does not answer, or not sensibly.
    """
    return _checked(vault.fresh_crl(), authority(vault))


def _checked(der: bytes, issuer: x509.Certificate) -> x509.CertificateRevocationList:
    try:
        return read_crl(der, issuer)
    except Unsound as error:
        raise malformed_answer() from error


def malformed_answer() -> BackendDown:
    """OpenBao answered, and what it said cannot be so."""
    return BackendDown(
        "The key store's certificate is not what was asked for.",
        backend="openbao",
        advice="Try again in a minute; the operator finds more in the log.",
    )
