"""Kind `x509`: a client certificate for a gateway that asks for one (mutual TLS, OpenVPN, IPsec), from OpenBao's PKI.

The guest keeps the private key. The lease is the certificate's one URI name and its CN, gateway, slice and action are
O and OU, which OpenBao's role fixes: neither guest nor web replica chooses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.base.errors import BackendDown, Invalid
from broker.keystore.responses import SignedCertificate
from broker.keystore.vault import ChildToken, Vault, VaultRefused
from broker.kinds.base import Kind, own_token, refused_as
from broker.kinds.names import connection_of, policy_of, role_of
from broker.kinds.values import (
    Authority,
    BackendListing,
    BoundSlice,
    Connects,
    Ending,
    Issued,
    LeaseToEnd,
    LeaseToIssue,
    ListedCredential,
    Proof,
    Use,
)
from broker.kinds.x509.certificates import (
    ADVICE,
    DOMAIN,
    FIELD,
    URI,
    Unsound,
    check_issued,
    check_request,
    common_name,
    read_certificate,
    read_crl,
    serial_of,
    uri,
)
from broker.kinds.x509.ending import authority, end_many, stored

log = structlog.get_logger(__name__)
# A certificate cannot be lengthened, and one that has expired no longer closes an open connection by the revocation
# list. So it lives a little longer than its lease, and the worker revokes it meanwhile.
BACKSTOP_SECONDS = 60
# Between our writing down when the lease began and OpenBao's signing.
_SLACK_SECONDS = 10
_LONGEST = "25h"
_PLACE = "openbao pki"


class X509Kind(Kind):
    """See `broker.kinds.base.Kind`."""

    name = "x509"
    position = 50
    needs_child_token = True
    has_authority = True
    names_slices_by_id = True
    connects = Connects("gateway", "an OU of its certificates", asked=False)
    binding_fields = ()
    proof = Proof(
        name="csr",
        label="Certificate signing request (PEM)",
        how="openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout guest.key"
        " -out guest.csr -subj /CN=guest",
    )
    ending = Ending(
        how="The certificate is revoked. Gateways that ask by OCSP refuse it within 2 s, those that fetch the"
        " revocation list as in deploy/ refuse it within 15 s and end open connections. A gateway that does neither"
        " accepts it until it expires, a minute after its lease.",
        new_sessions=15,
        open_sessions=45,
        worst_case=BACKSTOP_SECONDS + 60,
    )
    use = Use(
        about="A client certificate, for gateways that ask for one: mutual TLS and VPN.",
        secrets=frozenset(),
        command="guestkey get {dataset} --slice {slice} --kind x509 --format pem --out tls/",
        command_says="Creates a key, gets a certificate for it, and writes both into a folder. The key stays there.",
    )

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{connection}`: the gateway, by its name in GUESTKEY_X509_CONNECTIONS."""
        return {"connection": connection_of(binding, longest=40)}

    def check_proof(self, text: str) -> str:
        """A certificate signing request; see `broker.kinds.x509.certificates`."""
        return check_request(text)

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """Make a role and a policy for each action, and let certificates say where they can be checked."""
        if not bound.place:
            raise Invalid(
                f"No gateway is called {bound.connection!r}.",
                field="/binding/connection",
                advice="Add it to GUESTKEY_X509_CONNECTIONS of web and worker, then try again.",
            )
        setup.write_certificate_urls(bound.place["pki_url"])
        for action in sorted(self.actions):
            role = role_of(slice_id, action)
            setup.write_role("pki", role, role_definition(bound.connection, slice_id, action))
            setup.write_policy(policy_of(slice_id, action), _policy(role))
        return None

    def unregister(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """Remove them."""
        for action in sorted(self.actions):
            setup.delete_policy(policy_of(slice_id, action))
            setup.delete_role("pki", role_of(slice_id, action))

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """curl, with certificate and key from files."""
        says = "Save the certificate as guest.pem beside guest.key, the key you made the request with."
        return says, f"curl --cert guest.pem --key guest.key https://{values['host']}:{values['port']}/"

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Have the guest's key signed, and hold the certificate to what was asked before anybody gets it."""
        request = x509.load_pem_x509_csr(lease.public_key.encode())
        issuer = authority(vault)
        if request.public_key() == issuer.public_key():
            raise Invalid("That is the authority's own key.", field=FIELD, advice=ADVICE)
        with refused_as("The key store refused to sign the certificate.", lease=lease.id):
            made = vault.sign_certificate(
                own_token(token),
                role_of(lease.slice_id, lease.action),
                lease.public_key,
                common_name=common_name(lease.handle),
                uri=uri(lease.handle),
                ttl=lease.lifetime + BACKSTOP_SECONDS,
            )
        try:
            _check(made, issuer, request, lease)
        except Unsound as error:
            log.error("x509.unsound_certificate", lease=lease.id, error=error.why)
            raise
        values = {
            "certificate": made.certificate.strip() + "\n",
            "chain": made.issuer.strip() + "\n",
            "serial": made.serial,
            "gateway": str(lease.binding["connection"]),
            "host": lease.place.get("host", ""),
            "port": lease.place.get("port", ""),
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values, backend_lease_id=made.serial)

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """Revoke every certificate of the leases that is known, then ask one new revocation list and OCSP."""
        return end_many(vault, leases)

    def authority_of(self, vault: Vault) -> Authority:
        """See `Kind.authority_of`."""
        certificate = authority(vault)
        crl = read_crl(vault.crl(), certificate)
        pem, der = Encoding.PEM, Encoding.DER
        return Authority(certificate.public_bytes(pem), crl.public_bytes(der), crl.public_bytes(pem))

    def by_hand(self, lease: LeaseToEnd) -> str:
        """See `Kind.by_hand`."""
        serial = lease.backend_lease_id or "SERIAL"
        return f"bao write pki/revoke serial_number={serial} && bao read pki/crl/rotate"

    def list_credentials(self, vault: Vault, tag: str, bounds: Sequence[BoundSlice]) -> BackendListing:
        """Certificates of ours that are neither expired nor revoked; where a lease has several, all are ended."""
        if not bounds:
            return BackendListing()
        by_connection = {bound.connection: bound for bound in bounds}
        try:
            living, complete = stored(vault).living(vault)
        except (BackendDown, VaultRefused) as error:
            log.warning("x509.not_listed", error=type(error).__name__)
            detail = error.detail if isinstance(error, BackendDown) else "The key store lets nothing be listed."
            return BackendListing(unasked={_PLACE: detail})
        found: dict[str, ListedCredential] = {}
        for serial, one in living.items():
            if one.handle.startswith(f"{tag}-"):
                bound = by_connection.get(one.connection, BoundSlice({"connection": one.connection}))
                found[one.handle] = ListedCredential(bound, None if one.handle in found else serial)
        others = {one.handle.partition("-")[0] for one in living.values()} - {tag}
        if complete:
            return BackendListing(found, frozenset({_PLACE}), {}, frozenset(others))
        more = "More certificates are new than one round reads; the next round goes on."
        return BackendListing(found, unasked={_PLACE: more}, other_tags=frozenset(others))


def role_definition(connection: str, slice_id: str, action: str) -> dict[str, Any]:
    """How OpenBao signs for a slice and action: a client's certificate, names as here, whatever the request says."""
    return {
        "allowed_domains": [DOMAIN],
        "allow_subdomains": True,
        "allow_bare_domains": False,
        "allow_glob_domains": False,
        "allow_wildcard_certificates": False,
        "allow_any_name": False,
        "allow_localhost": False,
        "allow_ip_sans": False,
        "allowed_uri_sans": [f"{URI}*"],
        "use_csr_common_name": False,
        "use_csr_sans": False,
        "require_cn": True,
        "organization": [connection],
        "ou": [f"{slice_id}:{action}"],
        "client_flag": True,
        "server_flag": False,
        "code_signing_flag": False,
        "email_protection_flag": False,
        "key_usage": ["DigitalSignature"],
        "ext_key_usage": ["ClientAuth"],
        "basic_constraints_valid_for_non_ca": True,
        # Which keys are strong enough is decided before a lease exists, by `check_request`.
        "key_type": "any",
        "not_before_duration": "30s",
        "ttl": "5m",
        "max_ttl": _LONGEST,
        "no_store": False,
        # Its serial ends a certificate: docs/decisions/0090-certificates-end-by-serial.md.
        "generate_lease": False,
    }


def _policy(role: str) -> str:
    # What is not named here a token cannot send: no other names, no end of its own choosing.
    return (
        f'path "pki/sign/{role}" {{\n'
        '  capabilities = ["update"]\n'
        "  allowed_parameters = {\n"
        '    "csr" = []\n'
        f'    "common_name" = ["*.{DOMAIN}"]\n'
        f'    "uri_sans" = ["{URI}*"]\n'
        '    "exclude_cn_from_sans" = []\n'
        '    "ttl" = []\n'
        "  }\n}\n"
    )


def _check(
    made: SignedCertificate, issuer: x509.Certificate, request: x509.CertificateSigningRequest, lease: LeaseToIssue
) -> None:
    certificate = read_certificate(made.certificate)
    check_issued(certificate, issuer, request, lease.handle)
    if read_certificate(made.issuer) != issuer:
        raise Unsound("another authority than the one gateways are told")
    if serial_of(certificate) != made.serial:
        raise Unsound("another serial than the certificate's")
    beyond = (certificate.not_valid_after_utc - lease.expires_at).total_seconds()
    if not 0 <= beyond <= BACKSTOP_SECONDS + _SLACK_SECONDS:
        raise Unsound(f"a certificate that ends {beyond:.0f} s after its lease")


KIND = X509Kind()
