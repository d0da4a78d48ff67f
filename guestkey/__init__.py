"""Guestkey for programs: a fresh credential for one dataset, kept alive while it is used, and given back.

    import guestkey

    with guestkey.Client() as client, client.lease("trials", kind="postgres") as lease:
        connect(password=lease.values["password"])

Needs the plain install only; `guestkey.s3`, `guestkey.postgres` and `guestkey.filesystem` need the extra they name.
"""

from guestkey.client import Client
from guestkey.credentials import Credentials
from guestkey.errors import BackendDown, Denied, Error, FactorNeeded, NotFound, NotSignedIn, Reason, Refused
from guestkey.leases import Lease

__all__ = [
    "BackendDown",
    "Client",
    "Credentials",
    "Denied",
    "Error",
    "FactorNeeded",
    "Lease",
    "NotFound",
    "NotSignedIn",
    "Reason",
    "Refused",
]
