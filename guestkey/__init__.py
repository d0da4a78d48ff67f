"""Guestkey for programs: a fresh credential for one dataset, kept alive while it is used, and given back.

    import guestkey

    with guestkey.Client() as client, client.lease("trials", kind="postgres") as lease:
        connect(password=lease.values["password"])

Needs the plain install only; `guestkey.s3`, `guestkey.postgres` and `guestkey.filesystem` need the extra they name.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_HOMES = {"Client": "client", "Credentials": "credentials", "Lease": "leases"}


def __getattr__(name: str) -> Any:
    """What is imported from here, when it is first asked for (PEP 562): the `guestkey` command starts without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"guestkey.{_HOMES.get(name, 'errors')}"), name)
