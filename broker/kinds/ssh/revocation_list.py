"""Lists of revoked certificates (KRL) for SFTP hosts that cannot ask at every log-in; `ssh-keygen` writes them.

What is signed is text: `guestkey-krl/1`, the connection, the version and the list in base64, a line each. So a host
cannot be given another host's list, and sees whether one is older than its own.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.values import SignedList

SIGNING_KEY = "ssh-lists"
HEAD = "guestkey-krl/1"
# An empty file would let everybody in, so no list is ever without an entry.
NOBODY = "token-nobody"
_SECONDS = 10


def signed_list(vault: Vault, connection: str, key_ids: Sequence[str], version: int) -> SignedList:
    """Write and sign a list.

    Args:
        version: grows from list to list; microseconds since 1970.

    Raises:
        BackendDown: OpenBao does not answer or refuses, or `ssh-keygen` is not there.
    """
    try:
        authority = vault.ssh_authority()
        encoded = base64.b64encode(_written(authority, key_ids, version)).decode()
        text = f"{HEAD}\n{connection}\n{version}\n{encoded}\n"
        newest, _ = vault.public_keys(SIGNING_KEY)
        return SignedList(text, vault.sign_ed25519(SIGNING_KEY, text.encode(), version=newest))
    except VaultRefused as error:
        raise BackendDown(
            "The key store refused to sign the list.", backend="openbao", advice="Tell the operator."
        ) from error


def _written(authority: str, key_ids: Sequence[str], version: int) -> bytes:
    with TemporaryDirectory(prefix="guestkey-") as name:
        folder = Path(name)
        (folder / "ca.pub").write_text(authority + "\n")
        (folder / "spec").write_text("".join(f"id: {key_id}\n" for key_id in (NOBODY, *key_ids)))
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
