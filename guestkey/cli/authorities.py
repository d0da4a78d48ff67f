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

from broker.kinds.client import unusable
from guestkey.cli import own_files
from guestkey.cli.clients import client_of

CARRIED = "ca_pem"
_LONGEST = 64 * 1024
_CERTIFICATES = re.compile(r"(-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+")


def settled(kind: str, values: MutableMapping[str, Any]) -> None:
    """Put the authority that a credential carries into a file, and name that where the tools of its kind look for it.

    Raises:
        Fault: what it carries are no certificates, or no file can be written.
    """
    carried = values.get(CARRIED)
    if carried:
        values[client_of(kind).authority] = str(file_of(str(carried)))


def file_of(certificates: str) -> Path:
    """A file of mode 0600 with these certificates.

    Raises:
        Fault: as `settled`.
    """
    if len(certificates) > _LONGEST or _CERTIFICATES.fullmatch(certificates) is None:
        raise unusable(CARRIED)
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
