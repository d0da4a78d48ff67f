"""What the broker asks of OpenBao's engines, transit, key-value, PKI and SSH, and how slices are set up there.

The calls themselves (log-in, limits, breakers, hvac) are `broker.keystore.vault.Vault`, which this is a part of.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from broker.base.errors import BackendDown
from broker.keystore.responses import (
    MISSHAPEN,
    ChildToken,
    SignedCertificate,
    StoredCertificate,
    VaultRefused,
    checked_name,
    checked_path,
    checked_serial,
    down,
    expecting_shape,
    number,
    part,
    text,
    texts,
)

# Of the five that an end may take: an OpenBao that hangs would use up most of them.
_REMEMBERED_SECONDS = 1.5
_OCSP = "application/ocsp-request"
# How long one who needs a fresh list waits for those before it.
_ROTATION_SECONDS = 5.0


class Engines(ABC):
    """Operations over the calls that `Vault` makes: as one identity, with a lease's token, or as nobody.

    All raise `BackendDown` where OpenBao does not answer, and `VaultRefused` where it refuses or knows no such thing.
    """

    def __init__(self) -> None:
        self._remembered: dict[str, Mapping[str, str]] = {}
        self._rotation = Lock()
        self._ticket = Lock()
        self._begun = 0
        self._made = 0
        self._fresh = b""

    @abstractmethod
    def deadline(self, seconds: float) -> AbstractContextManager[None]:
        """What this thread asks meanwhile takes no longer together."""

    @abstractmethod
    def _read(self, path: str) -> Any:
        """What is at a path; None for nothing."""

    @abstractmethod
    def _write(self, path: str, body: Mapping[str, Any], *, database_role: str = "") -> Any:
        """Write and return the answer."""

    @abstractmethod
    def _write_as(self, token: ChildToken, path: str, body: Mapping[str, Any]) -> Any:
        """The same with a lease's own token."""

    @abstractmethod
    def _fetch(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        """The bytes at a path that everybody may read."""

    @abstractmethod
    def _list(self, path: str) -> Any:
        """What is under a path; None for nothing."""

    @abstractmethod
    def _delete(self, path: str) -> None:
        """Remove what is at a path; twice is fine."""

    def standby_answers(self) -> bool:
        """Whether the node asked may answer reads while it is a standby: from what it knew last, if it is cut off.

        Where this identity may not read the node's configuration (policies of an earlier release), a node that is not
        the leader counts as one. HashiCorp Vault does not know the setting: its standbys pass requests on.
        """
        try:
            configuration = part(self._read("sys/config/state/sanitized"), "data")
        except VaultRefused:
            return not part(self._read("sys/leader"), "is_self")
        with expecting_shape("data.disable_standby_reads"):
            return configuration.get("disable_standby_reads", True) is not True

    # -- transit ------------------------------------------------------------------------------------------------

    def encrypt(self, key: str, plaintext: bytes, *, context: str | None = None) -> str:
        """Wrap bytes under a transit key; for a derived key `context` binds the result to one owner."""
        body = {"plaintext": _base64(plaintext)} | _context(context)
        try:
            answer = self._write(f"transit/encrypt/{checked_name(key)}", body)
        except VaultRefused as error:
            raise down("The key store refuses to encrypt a secret.") from error
        return text(answer, "data", "ciphertext")

    def decrypt(self, key: str, ciphertext: str, *, context: str | None = None) -> bytes:
        """Unwrap what `encrypt` made.

        Raises:
            VaultRefused: wrong context, altered text, or a key that is gone.
        """
        body = {"ciphertext": ciphertext} | _context(context)
        answer = self._write(f"transit/decrypt/{checked_name(key)}", body)
        with expecting_shape("data.plaintext"):
            return base64.b64decode(part(answer, "data", "plaintext"))

    def sign_jws(self, key: str, signing_input: bytes, *, version: int) -> str:
        """An ES256 signature of the input in JWS form (RFC 7515: r and s, base64url), by one key version."""
        body = {
            "input": _base64(signing_input),
            "marshaling_algorithm": "jws",
            "hash_algorithm": "sha2-256",
            "key_version": version,
        }
        return text(self._write(f"transit/sign/{checked_name(key)}", body), "data", "signature").rpartition(":")[2]

    def sign_ed25519(self, key: str, message: bytes, *, version: int) -> bytes:
        """The 64 bytes of an Ed25519 signature (RFC 8032) by one version of a transit key."""
        body = {"input": _base64(message), "key_version": version}
        signature = text(self._write(f"transit/sign/{checked_name(key)}", body), "data", "signature")
        with expecting_shape("data.signature"):
            return base64.b64decode(signature.rpartition(":")[2])

    def public_keys(self, key: str) -> tuple[int, dict[int, str]]:
        """The newest version of a signing key and the public keys of every version: PEM, or base64 for Ed25519."""
        answer = self._read(f"transit/keys/{checked_name(key)}")
        if answer is None:
            raise VaultRefused(f"no transit key {key}")
        versions, newest = part(answer, "data", "keys"), number(answer, "data", "latest_version")
        with expecting_shape("data.keys"):
            return newest, {int(version): text(versions, version, "public_key") for version in versions}

    # -- secrets of the broker's own hands ----------------------------------------------------------------------

    def secret(self, path: str, *, remembered: bool = False) -> Mapping[str, str]:
        """The newest version of a secret in the key-value mount `guestkey`.

        Args:
            remembered: while OpenBao is down, answer what it said last; for hands that must be able to end things then.
                Where it has said something before, it is waited for no longer than an end can spare.

        Raises:
            VaultRefused: there is none, or this identity may not read it.
        """
        known = self._remembered.get(path) if remembered else None
        try:
            with nullcontext() if known is None else self.deadline(_REMEMBERED_SECONDS):
                secret = self.found_secret(path)
        except BackendDown:
            if known is not None:
                return known
            raise
        if secret is None:
            raise VaultRefused(f"no secret {path}")
        if remembered:
            self._remembered[path] = secret
        return secret

    def found_secret(self, path: str) -> Mapping[str, str] | None:
        """The same, or None where there is none."""
        answer = self._read(f"guestkey/data/{checked_path(path)}")
        if answer is None:
            return None
        with expecting_shape("data.data"):
            secret = part(answer, "data", "data")
            return {str(key): text(secret, key) for key in secret}

    def remember(self, path: str, content: Mapping[str, str]) -> None:
        """What a `remembered` secret is while OpenBao is down, told by the operator."""
        self._remembered[checked_path(path)] = content

    def keep(self, path: str, content: Mapping[str, str]) -> None:
        """Write a new version of an entry in the key-value mount `guestkey`."""
        self._write(f"guestkey/data/{checked_path(path)}", {"data": dict(content)})

    # -- leases of other engines --------------------------------------------------------------------------------

    def lease_names(self, path: str) -> list[str]:
        """What lies under a path of leases: parts of names; those that end with a slash have more under them."""
        answer = self._list(f"sys/leases/lookup/{checked_path(path)}")
        return [] if answer is None else texts(answer, "data", "keys")

    def entry(self, path: str) -> tuple[Mapping[str, str], int]:
        """What an entry holds and its version; nothing and 0 where there is none."""
        answer = self._read(f"guestkey/data/{checked_path(path)}")
        if answer is None:
            return {}, 0
        content, version = part(answer, "data", "data") or {}, number(answer, "data", "metadata", "version")
        with expecting_shape("data.data"):
            return {str(key): str(value) for key, value in content.items()}, version

    def keep_if(self, path: str, content: Mapping[str, str], version: int) -> bool:
        """Write an entry only if its version is still this one; whether it was. One of several who try wins."""
        body = {"data": dict(content), "options": {"cas": version}}
        try:
            self._write(f"guestkey/data/{checked_path(path)}", body)
        except VaultRefused:
            if self.entry(path)[1] == version:
                raise
            return False
        return True

    # -- setting up slices --------------------------------------------------------------------------------------

    def write_role(self, engine: str, role: str, definition: Mapping[str, Any]) -> None:
        """Create or replace a role that an engine makes credentials by; for the setup identity only."""
        self._write(f"{checked_name(engine)}/roles/{checked_name(role)}", dict(definition))

    def delete_role(self, engine: str, role: str) -> None:
        """Remove one; twice is fine."""
        self._delete(f"{checked_name(engine)}/roles/{checked_name(role)}")

    def write_policy(self, name: str, hcl: str) -> None:
        """Create or replace an ACL policy; for the setup identity only."""
        self._write(f"sys/policies/acl/{checked_name(name)}", {"policy": hcl})

    def delete_policy(self, name: str) -> None:
        """Remove an ACL policy; twice is fine."""
        self._delete(f"sys/policies/acl/{checked_name(name)}")

    # -- PKI: for one lease -------------------------------------------------------------------------------------

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

    # -- PKI: ending --------------------------------------------------------------------------------------------

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

    # -- PKI: for everybody -------------------------------------------------------------------------------------

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


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _context(context: str | None) -> dict[str, str]:
    return {} if context is None else {"context": _base64(context.encode())}
