"""What the broker asks of OpenBao's PKI and SSH engines: certificates signed, listed, revoked, and checked by gateways.

The calls themselves (log-in, limits, breakers, hvac) are `broker.keystore.vault.Vault`, which this is a part of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from broker.keystore.engines import Engines
from broker.keystore.responses import MISSHAPEN, ChildToken, VaultRefused, checked_name, down, number, part, text, texts

_SERIAL = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){0,24}")
_OCSP = "application/ocsp-request"
# How long one who needs a fresh list waits for those before it.
_ROTATION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """What PKI made: PEM, the certificate of who signed, and the serial as OpenBao writes it."""

    certificate: str
    issuer: str
    serial: str


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate as OpenBao keeps it, and since when it is revoked, by OpenBao's clock."""

    certificate: str
    revoked_at: datetime | None


def checked_serial(serial: str) -> str:
    """The serial, if it is hexadecimal pairs with colons between, as OpenBao writes them.

    Raises:
        ValueError: anything else; it becomes part of a path.
    """
    if _SERIAL.fullmatch(serial) is None:
        raise ValueError(f"unsafe serial: {serial!r}")
    return serial


class Certificates(Engines):
    """Operations of these two engines."""

    def __init__(self) -> None:
        super().__init__()
        self._rotation = Lock()
        self._ticket = Lock()
        self._begun = 0
        self._made = 0
        self._fresh = b""

    # -- for one lease ------------------------------------------------------------------------------------------

    def sign_certificate(
        self, token: ChildToken, role: str, csr: str, *, common_name: str, uri: str, ttl: int
    ) -> SignedCertificate:
        """Sign the key of a request with a lease's own token; `ttl` is in seconds.

        A `ttl` over the role's longest is cut without an error: what came back must be looked at.

        Raises:
            VaultRefused: the token's policy, or the role, does not allow it.
        """
        body = {
            "csr": csr,
            "common_name": common_name,
            "exclude_cn_from_sans": True,
            "uri_sans": uri,
            "ttl": f"{ttl}s",
        }
        answer = self._write_as(token, f"pki/sign/{checked_name(role)}", body)
        return SignedCertificate(
            *(text(answer, "data", name) for name in ("certificate", "issuing_ca", "serial_number"))
        )

    # -- ending -------------------------------------------------------------------------------------------------

    def certificate(self, serial: str) -> StoredCertificate | None:
        """A certificate OpenBao keeps; None if it keeps none of that serial."""
        answer = self._read(f"pki/cert/{checked_serial(serial)}")
        if answer is None:
            return None
        moment = number(answer, "data", "revocation_time")
        revoked_at = datetime.fromtimestamp(moment, UTC) if moment else None
        return StoredCertificate(text(answer, "data", "certificate"), revoked_at)

    def certificate_serials(self) -> list[str]:
        """The serials of every certificate kept, expired ones too until they are tidied away."""
        answer = self._list("pki/certs")
        return [] if answer is None else [serial.replace("-", ":") for serial in texts(answer, "data", "keys")]

    def revoke_certificate(self, serial: str) -> None:
        """Revoke; twice is fine, and so is one that has expired. The revocation list shows it once made anew."""
        self._write("pki/revoke", {"serial_number": checked_serial(serial)})

    def fresh_crl(self) -> bytes:
        """A revocation list (DER) made after this call began; callers at the same time share one.

        Making it costs as much as there are entries on it, so a batch of revocations pays once.
        """
        with self._ticket:
            mine = self._begun + 1
        if not self._rotation.acquire(timeout=_ROTATION_SECONDS):
            raise down()
        try:
            if self._made < mine:
                with self._ticket:
                    self._begun += 1
                    making = self._begun
                if part(self._read("pki/crl/rotate"), "data", "success") is not True:
                    raise down()
                self._fresh, self._made = self.crl(), making
            return self._fresh
        finally:
            self._rotation.release()

    # -- for everybody ------------------------------------------------------------------------------------------

    def crl(self) -> bytes:
        """The revocation list in force, DER (RFC 5280, section 5)."""
        return self._fetch("pki/crl")

    def ca_certificate(self) -> str:
        """The certificate of whoever signs guests' certificates, PEM."""
        return self._fetch("pki/ca/pem").decode("ascii", "replace")

    def clock(self) -> datetime:
        """OpenBao's own clock, to the second: what it goes by when a certificate expires."""
        try:
            seconds = json.loads(self._fetch("sys/health"))["server_time_utc"]
            return datetime.fromtimestamp(int(seconds), UTC)
        except (*MISSHAPEN, OverflowError) as error:
            raise down() from error

    def ocsp(self, request: bytes) -> bytes:
        """OpenBao's signed answer to an OCSP request, both DER (RFC 6960)."""
        return self._fetch("pki/ocsp", request, _OCSP)

    # -- setting up slices --------------------------------------------------------------------------------------

    def write_certificate_urls(self, base: str) -> None:
        """Where certificates say that CA, revocation list and OCSP are: below this address; setup identity only."""
        body = {
            "issuing_certificates": [f"{base}/ca.pem"],
            "crl_distribution_points": [f"{base}/crl"],
            "ocsp_servers": [f"{base}/ocsp"],
        }
        self._write("pki/config/urls", body)

    # -- SSH ----------------------------------------------------------------------------------------------------

    def ssh_authority(self) -> str:
        """The public key of the authority, `<type> <base64>`.

        Raises:
            VaultRefused: there is none, or this identity may not read it.
        """
        answer = self._read("ssh/config/ca")
        if answer is None:
            raise VaultRefused("no SSH authority")
        return text(answer, "data", "public_key").strip()

    def sign_ssh(
        self,
        role: str,
        public_key: str,
        principal: str,
        *,
        seconds: int,
        critical_options: Mapping[str, str] | None = None,
        token: ChildToken | None = None,
    ) -> str:
        """A user certificate for a key, `<type> <base64>`; its key id is `token-` and the token's display name.

        Args:
            seconds: how long it is valid from now.
            critical_options: instead of the role's own, where the role lets them be given.
            token: the lease's own; None: as ourselves.
        """
        body: dict[str, Any] = {
            "public_key": public_key,
            "valid_principals": principal,
            "cert_type": "user",
            "ttl": f"{seconds}s",
        }
        if critical_options:
            body["critical_options"] = dict(critical_options)
        path = f"ssh/sign/{checked_name(role)}"
        answer = self._write(path, body) if token is None else self._write_as(token, path, body)
        return text(answer, "data", "signed_key").strip()
