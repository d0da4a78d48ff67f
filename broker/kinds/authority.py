"""The authority that signed a backend's certificate, for guests: it travels with the credential.

Guests do not have the file that a connection's setting names: without it their tools refuse the server, and advise
them not to check who it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
# What a credential calls it, and the file a guest is told to save it as.
NAME, FILE = "ca_pem", "guestkey-ca.pem"
# Beyond this it is a system's bundle of public authorities, which a guest's system has as well.
LONGEST = 32 * 1024
SYSTEM = "system"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def of_file(path: str | None) -> str:
    """The certificates in a file, in PEM and nothing else; empty if it has none, has too many, or cannot be read."""
    if not path or path == SYSTEM:
        return ""
    try:
        text = Path(path).read_text("ascii", errors="replace")
    except OSError as error:
        # It may lie where guests are, as it had to before credentials carried it.
        log.warning("authority.unreadable", error=error.strerror)
        return ""
    found = "".join(f"{certificate}\n" for certificate in _CERTIFICATE.findall(text))
    return found if len(found) <= LONGEST else ""


def is_public(path: str | None) -> bool:
    """Whether a file is a bundle of the world's public authorities."""
    try:
        return bool(path) and path != SYSTEM and Path(str(path)).stat().st_size > LONGEST
    except OSError:
        return False


def carried(place: Mapping[str, str], setting: str) -> dict[str, str]:
    """A connection's place as guests get it: with the certificates of the file that the setting names."""
    found = of_file(place.get(setting))
    return {**place, NAME: found} if found else dict(place)
