"""The authority that signed a backend's certificate: it comes with the credential, and tools want it in a file.

A file for each authority, named after what is in it, so that several credentials and programs can use it at once. It
holds no secret; that only its owner may change it is what counts.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from broker.cli import own_files
from broker.cli.faults import Code, Fault

CARRIED = "ca_pem"
# By what only a credential of that kind holds: where its tools look.
_SETTINGS = {"access_key_id": "ca_file", "dbname": "sslrootcert"}
_LONGEST = 64 * 1024
_CERTIFICATES = re.compile(r"(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+")


def settled(values: MutableMapping[str, Any]) -> None:
    """Put the authority that a credential carries into a file, and name that where the credential's tools look for it.

    Raises:
        Fault: what it carries are no certificates, or no file can be written.
    """
    carried = values.get(CARRIED)
    if not carried:
        return
    setting = next((name for told, name in _SETTINGS.items() if told in values), "ssl_ca")
    values[setting] = str(file_of(str(carried)))


def file_of(certificates: str) -> Path:
    """A file of mode 0600 with these certificates.

    Raises:
        Fault: as `settled`.
    """
    if len(certificates) > _LONGEST or _CERTIFICATES.fullmatch(certificates) is None:
        raise Fault(
            Code.FAULT,
            "The server's answer makes no sense.",
            why=f"The credential has no usable {CARRIED}.",
            next_step="guestkey doctor",
        )
    name = f"ca-{hashlib.sha256(certificates.encode()).hexdigest()[:32]}.pem"
    try:
        folder = user_data_path("guestkey", appauthor=False) / "authorities"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / name
        own_files.put_private(file, certificates)
    except OSError:
        # A home that cannot be written, as in many containers.
        descriptor, found = tempfile.mkstemp(prefix="guestkey-", suffix=f"-{name}", dir=own_files.session_folder())
        with os.fdopen(descriptor, "w") as opened:
            opened.write(certificates)
        return Path(found)
    return file
