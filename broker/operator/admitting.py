"""`guestkey bootstrap` and `guestkey recover`: the first admins, and the way back in. Run by hand on the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.base.errors import Invalid
from broker.operator.bootstrap import FirstSource, bootstrap, recover
from broker.operator.configuring import Told, load
from broker.runtime.parts import Parts


def admit_first(out: Told, first: FirstSource, *, unchecked: bool) -> None:
    """Set the installation up and print what its provider says and the two admins' joining links, once."""
    with _parts() as parts:
        begun = bootstrap(parts, first, unchecked=unchecked)
    found = [finding.told for finding in begun.found] or [
        "The provider was not tested. Once it is running: guestkey source check"
    ]
    said = "Two admins join with these links. Each works once; give each link to a different person:"
    told = [{"what": finding.what, "ok": finding.ok, "told": finding.told} for finding in begun.found]
    out.told([*found, said, *begun.links], {"links": begun.links, "findings": told})


def first_source(name: str, issuer: str, client_id: str, secret_file: Path | None, claims: list[str]) -> FirstSource:
    """The organisation's first source, from the options that name it.

    Raises:
        Invalid: a claim is not NAME=VALUE.
    """
    secret = secret_file.read_text().strip() if secret_file else None
    return FirstSource(name, issuer, client_id, secret, _claims(claims))


def readmit(out: Told, source_id: str | None) -> None:
    """Print one joining link for an admin of one hour; every admin is told."""
    with _parts() as parts:
        link = recover(parts, source_id)
    said = "The person who opens this link within an hour is an admin for that hour. All admins are notified:"
    out.told([said, link], {"link": link})


@contextmanager
def _parts() -> Iterator[Parts]:
    parts = Parts.build(load(), identity="issuer")
    try:
        yield parts
    finally:
        parts.close()


def _claims(texts: list[str]) -> dict[str, str]:
    claims = dict(text.partition("=")[::2] for text in texts)
    if len(claims) != len(texts) or not all(name and value for name, value in claims.items()):
        raise Invalid("A required claim is NAME=VALUE, each name once.", field="/claim")
    return claims
