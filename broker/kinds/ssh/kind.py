"""Kind `ssh`: an OpenSSH certificate for SFTP, from OpenBao's SSH authority, for a key that stays with its guest.

A certificate alone opens nothing: the host asks the broker at every log-in (`deploy/sshd`). Its key id carries the
lease, its principal is the account of one slice and action, which sees one directory as its whole file system.
Hosts that cannot ask at every log-in fetch lists of revoked certificates (KRL), which `ssh-keygen` writes.
"""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from broker.base.errors import BackendDown, Invalid
from broker.keystore.vault import ChildToken, Vault
from broker.kinds.base import TELL_THE_OPERATOR, Kind, keystore_failed, listed_by_each, own_token, refused_as
from broker.kinds.names import connection_of, policy_of, role_of, short
from broker.kinds.ssh import host_connection
from broker.kinds.ssh.host_connection import ENDER, SETUP, HostRefused, silent
from broker.kinds.ssh.public_keys import FIELD, Certificate, check_public_key
from broker.kinds.values import (
    BackendListing,
    BindingField,
    BoundSlice,
    Connects,
    Ending,
    Issued,
    LeaseToEnd,
    LeaseToIssue,
    NotEnded,
    Proof,
    SignedList,
    Use,
)

log = structlog.get_logger(__name__)
# The certificate ends so much later than the lease: a clock that is a little behind must not refuse a guest.
BACKSTOP_SECONDS = 60
# What a host gives a session that has outlived its certificate before it ends it by itself.
_HOST_SECONDS = 10
ACTIONS = ("read", "write")
_COMMANDS = {"read": "internal-sftp -R", "write": "internal-sftp"}
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_KEY_ID = re.compile(r"token-([a-z0-9]{6})-(l[a-z0-9]+)")
_MOST_PARTS = 10
# Signs lists of revoked leases.
SIGNING_KEY = "ssh-lists"
# An empty list would let everybody in, so none is ever without an entry.
NOBODY = "token-nobody"
_SECONDS = 10


def account_of(slice_id: str, action: str) -> str:
    """The account at the host that serves an action on a slice; it names nobody. Also the certificate's principal."""
    return f"gk-{short(slice_id)}{action[0]}"


def key_id_of(handle: str) -> str:
    """A certificate's key id, as OpenBao makes it of the lease token's display name."""
    return f"token-{handle}"


class SshKind(Kind):
    """See `broker.kinds.base.Kind`."""

    name = "ssh"
    position = 40
    needs_child_token = True
    asked_by_hosts = "For SFTP hosts: who may log in, and which leases are revoked."
    proof = Proof(
        name="public_key", label="SSH public key", how="ssh-keygen -t ed25519 -f guestkey, then send guestkey.pub"
    )
    connects = Connects("SFTP host", "a directory", asked=True)
    binding_fields = (
        BindingField(
            "directory",
            "Directory",
            "Below the host's /srv/guestkey, such as acme/batch-7. Guests see only this directory.",
        ),
    )
    ending = Ending(
        how="The broker answers no to the host, which asks at every log-in. The host bars the lease, stops and kills"
        " every process of its sessions, and says whether any is left. A host that only fetches a list of revoked"
        " leases is told to bar it, too.",
        new_sessions=5,
        open_sessions=5,
        worst_case=BACKSTOP_SECONDS + _HOST_SECONDS,
    )
    use = Use(
        about="A certificate for your own SSH key, for sftp and programs that use SFTP.",
        secrets=frozenset(),
        command="guestkey connect {dataset} --slice {slice}",
        command_says="Creates a key, gets a certificate for it, opens sftp, and ends the credential when sftp"
        " exits. The key stays on your machine.",
    )

    def __init__(self) -> None:
        # Learnt when it is first needed; an authority is made once.
        self._authority = ""

    def check_binding(self, binding: Mapping[str, Any]) -> Mapping[str, Any]:
        """`{connection, directory}`: a directory below the host's root, which becomes all that guests see."""
        connection, directory = connection_of(binding, "directory"), binding.get("directory")
        parts = directory.split("/") if isinstance(directory, str) else []
        if not 1 <= len(parts) <= _MOST_PARTS or not all(_PART.fullmatch(part) for part in parts):
            raise Invalid(
                "A directory is a path below the host's root, like acme/batch-7: parts of letters, digits, - and _,"
                " and dots inside; no leading or trailing slash.",
                field="/binding/directory",
                advice="Rename it on the host, or bind-mount it under such a name.",
            )
        return {"connection": connection, "directory": directory}

    def check_proof(self, text: str) -> str:
        """One OpenSSH public key; see `broker.kinds.ssh.public_keys`."""
        return self._not_ours(check_public_key(text))

    def register(self, setup: Vault, slice_id: str, bound: BoundSlice) -> int | None:
        """The slice's accounts at the host; a role and a policy at OpenBao for each action."""
        if not bound.place:
            raise Invalid(
                f"There is no SFTP host called {bound.connection}.",
                field="/binding/connection",
                advice="Add it to GUESTKEY_SSH_CONNECTIONS and restart the worker.",
            )
        try:
            host_connection.ask(setup, SETUP, bound.place, "add", short(slice_id), str(bound.binding["directory"]))
        except HostRefused as error:
            raise Invalid(f"The SFTP host says: {error}.", field="/binding/directory") from error
        for action in ACTIONS:
            role = role_of(slice_id, action)
            setup.write_role("ssh", role, role_definition(account_of(slice_id, action), action))
            setup.write_role("ssh", f"{role}-net", role_definition(account_of(slice_id, action), action, networks=True))
            text = f'path "ssh/sign/{role}" {{ capabilities = ["update"] }}\npath "ssh/sign/{role}-net" {{\n'
            text += '  capabilities        = ["update"]\n  required_parameters = ["critical_options"]\n}\n'
            setup.write_policy(policy_of(slice_id, action), text)
        return None

    def unregister(self, setup: Vault, slice_id: str, bound: BoundSlice) -> None:
        """Policies, roles, and the accounts at the host; its files stay."""
        for action in ACTIONS:
            setup.delete_policy(policy_of(slice_id, action))
            setup.delete_role("ssh", role_of(slice_id, action))
            setup.delete_role("ssh", f"{role_of(slice_id, action)}-net")
        try:
            host_connection.ask(setup, SETUP, bound.place, "remove", short(slice_id))
        except HostRefused as error:
            raise Invalid(f"The SFTP host says: {error}.") from error

    def tool(self, values: Mapping[str, str]) -> tuple[str, str]:
        """sftp, which finds a certificate beside its key."""
        says = (
            "Save the certificate as guestkey-cert.pub beside your private key guestkey, and the host key's line in"
            " guestkey-hosts."
        )
        options = "-o IdentitiesOnly=yes -o UserKnownHostsFile=guestkey-hosts"
        host = f"[{values['host']}]" if ":" in values["host"] else values["host"]
        return says, f"sftp -i guestkey {options} -P {values['port']} {values['user']}@{host}"

    def issue(self, vault: Vault, token: ChildToken | None, lease: LeaseToIssue) -> Issued:
        """Have the guest's key certified. What comes back is read before it is handed on."""
        if not lease.place:
            raise keystore_failed("The host behind this slice is no longer in the settings.")
        if not self._authority:
            with refused_as("The key store has no SSH authority."):
                self._authority = " ".join(vault.ssh_authority().split()[:2])
        self._not_ours(lease.public_key)
        role, options = role_of(lease.slice_id, lease.action), {"force-command": _COMMANDS[lease.action]}
        if lease.networks:
            role, options["source-address"] = f"{role}-net", ",".join(lease.networks)
        user = account_of(lease.slice_id, lease.action)
        with refused_as("The key store refused to certify the key.", lease=lease.id):
            text = vault.sign_ssh(
                role,
                lease.public_key,
                user,
                seconds=lease.lifetime + BACKSTOP_SECONDS,
                critical_options=options if lease.networks else None,
                token=own_token(token),
            )
        _check(text, lease, user, options, self._authority)
        host, port = lease.place.get("host", ""), lease.place.get("port", "22")
        values = {
            "certificate": text,
            "host": host,
            "port": port,
            "user": user,
            # What the guest sees: the slice's directory is the root.
            "directory": "/",
            "host_key": f"{host if port == '22' else f'[{host}]:{port}'} {lease.place.get('host_key', '')}",
            "connection": str(lease.binding["connection"]),
            "expires_at": lease.expires_at.isoformat(),
        }
        return Issued(values=values)

    def end_many(self, vault: Vault, leases: Sequence[LeaseToEnd]) -> Mapping[str, str | Exception]:
        """Bar leases of one host there, end their sessions, and have the host look again.

        All at once: no session that is slow to go is waited for before another is cut.
        """
        try:
            key_ids = [key_id_of(lease.handle) for lease in leases]
            said = host_connection.ask(vault, ENDER, leases[0].place, "end", *key_ids)
        except BackendDown as error:
            return {lease.id: error for lease in leases}
        except HostRefused as error:
            if len(leases) == 1:
                return {leases[0].id: NotEnded(f"The SFTP host refused: {error}")}
            # A host of an earlier release takes one at a time.
            return {lease.id: self.end_many(vault, [lease])[lease.id] for lease in leases}
        if len(leases) > 1:
            said = said["leases"] if isinstance(said.get("leases"), Mapping) else {}
        else:
            said = {key_id_of(leases[0].handle): said}
        return {lease.id: _outcome(said.get(key_id_of(lease.handle))) for lease in leases}

    def key_shown(self, handle: str, slice_id: str, action: str, account: str, certificate: str) -> str | None:
        """See `Kind.key_shown`. Another key under the same key id was certified by somebody else."""
        try:
            shown = Certificate.read(certificate)
        except ValueError:
            return None
        meant = account == account_of(slice_id, action) and shown.key_id == key_id_of(handle)
        return shown.public_key if meant else None

    def revoked_list(self, vault: Vault, connection: str, handles: Sequence[str], version: int) -> SignedList:
        """See `Kind.revoked_list`: for sshd's `RevokedKeys`.

        What is signed is text: `guestkey-krl/1`, the connection, the version and the list in base64, a line each. So a
        host cannot be given another host's list, and sees whether one is older than its own.
        """
        with refused_as("The key store refused to sign the list.", TELL_THE_OPERATOR, connection=connection):
            revoked = _written(vault.ssh_authority(), [NOBODY, *map(key_id_of, handles)], version)
            text = f"guestkey-krl/1\n{connection}\n{version}\n{base64.b64encode(revoked).decode()}\n"
            newest, _ = vault.public_keys(SIGNING_KEY)
            return SignedList(text, vault.sign_ed25519(SIGNING_KEY, text.encode(), version=newest))

    def by_hand(self, lease: LeaseToEnd) -> str:
        """What root types at the host."""
        return f"/usr/local/lib/guestkey/guestkey-sessions end {key_id_of(lease.handle)}"

    def list_credentials(self, vault: Vault, tag: str, bounds: Sequence[BoundSlice]) -> BackendListing:
        """Live sessions of ours on every host. A certificate without a session is seen nowhere, and opens nothing."""

        def ask(bound: BoundSlice) -> list[tuple[str, str, bool]]:
            try:
                said = host_connection.ask(vault, ENDER, bound.place, "list").get("sessions")
            except HostRefused as error:
                raise silent(str(error)) from error
            found = [_KEY_ID.fullmatch(str(key_id)) for key_id in said] if isinstance(said, list) else []
            return [(named[1], named[2], False) for named in found if named]

        return listed_by_each(self.name, tag, bounds, ask)

    def _not_ours(self, public_key: str) -> str:
        if public_key == self._authority:
            raise Invalid(
                "This is the key of the authority that signs certificates.",
                field=FIELD,
                advice="Send a public key of your own.",
            )
        return public_key


def role_definition(account: str, action: str, *, networks: bool = False) -> dict[str, Any]:
    """What OpenBao certifies for one account: for it only, for users only, for SFTP only.

    With `networks` the options are given with each key, because no role can know them; the host's own ForceCommand
    holds for both (docs/decisions/0086).
    """
    return {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allow_host_certificates": False,
        "allowed_users": account,
        "default_user": account,
        "allow_empty_principals": False,
        "allow_user_key_ids": False,
        "key_id_format": "{{token_display_name}}",
        # "" would allow any. A name that does not exist allows none, and leaves the defaults in force.
        "allowed_critical_options": "force-command,source-address" if networks else "none",
        "default_critical_options": {"force-command": _COMMANDS[action]},
        "allowed_extensions": "none",
        "default_extensions": {},
        "ttl": "5m",
        "max_ttl": "25h",
        "not_before_duration": "30s",
    }


def _outcome(said: Any) -> str | NotEnded:
    """What a host's answer about one lease confirms, or why it does not say that nothing is left."""
    if not isinstance(said, Mapping):
        return NotEnded("The SFTP host did not report the result.")
    if said.get("processes") != 0:
        return NotEnded(
            f"Of its sessions at the SFTP host {said.get('processes')} processes were killed and are still there, as"
            " happens while its disk does not answer."
        )
    if said.get("sessions") != 0:
        return NotEnded(f"The SFTP host shows {said.get('sessions')} sessions, log-ins under way among them.")
    if said.get("barred") is not True:
        return NotEnded("No session is left, but the SFTP host could not bar the lease: is /run full there?")
    return "sftp host: barred, no session"


def _check(text: str, lease: LeaseToIssue, user: str, options: Mapping[str, str], authority: str) -> None:
    """Read a certificate that OpenBao made, and refuse what is not just what was asked for."""
    try:
        made = Certificate.read(text)
    except ValueError as error:
        raise keystore_failed("The key store answered without a certificate.") from error
    lateness = made.valid_until - lease.expires_at.timestamp()
    as_asked = (
        made.public_key == lease.public_key
        and made.key_id == key_id_of(lease.handle)
        and made.principals == (user,)
        and made.critical_options == options
        and not made.extensions
        and made.authority == authority
    )
    if not as_asked or not 0 < lateness < 2 * BACKSTOP_SECONDS:
        log.error("ssh.unexpected_certificate", lease=lease.id)
        raise keystore_failed("The key store made another certificate than was asked for.")


def _written(authority: str, key_ids: Sequence[str], version: int) -> bytes:
    with TemporaryDirectory(prefix="guestkey-") as name:
        folder = Path(name)
        (folder / "ca.pub").write_text(authority + "\n")
        (folder / "spec").write_text("".join(f"id: {key_id}\n" for key_id in key_ids))
        command = ["ssh-keygen", "-q", "-k", "-f", "krl", "-s", "ca.pub", "-z", str(version), "spec"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, timeout=_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise BackendDown(
                "The list of revoked leases could not be written.",
                backend="ssh",
                advice="Tell the operator: ssh-keygen must be installed beside the broker.",
            ) from error
        return (folder / "krl").read_bytes()


KIND = SshKind()
