"""Programs that open a credential for a person, such as psql; and the files a program finds beside its environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from broker.kinds.client import Credential
from guestkey.cli import own_files
from guestkey.cli.clients import client_of
from guestkey.cli.faults import Code, Fault
from guestkey.cli.words import safe


def program_for(dataset: str, kind: str, action: str) -> str:
    """The program that opens credentials of a kind.

    Raises:
        Fault: there is none for the kind, it is not installed, or it could show nothing.
    """
    client = client_of(kind)
    if client.program is None:
        raise Fault(
            Code.USAGE,
            f"No program here opens a credential of kind {kind}.",
            next_step=f"guestkey run {safe(dataset)} --kind {kind} -- YOUR-TOOL",
        )
    client.check_opening(safe(dataset), safe(action))
    return client.program.find()


@contextmanager
def beside(credential: Credential) -> Iterator[dict[str, str]]:
    """Variables that name files of a credential, which are gone after the block; none for kinds that need none."""
    client = client_of(credential.kind)
    if not client.file_variables:
        yield {}
        return
    with own_files.passing() as folder:
        files = client.files(credential, folder)
        for name, text in files.items():
            own_files.put_private(folder / name, text)
        yield {variable: str(folder / name) for variable, name in client.file_variables.items() if name in files}
