"""The kinds of credentials, one file each. A new kind is one new file and one line here."""

from __future__ import annotations

from broker.kinds.base import Kind
from broker.kinds.mariadb.kind import MariadbKind
from broker.kinds.postgres.kind import PostgresKind
from broker.kinds.s3.kind import S3Kind
from broker.kinds.ssh.kind import SshKind
from broker.kinds.token.kind import TokenKind
from broker.kinds.x509.kind import X509Kind

__all__ = ["kinds", "serving"]

kinds: dict[str, Kind] = {
    kind.name: kind for kind in (PostgresKind(), MariadbKind(), S3Kind(), SshKind(), X509Kind(), TokenKind())
}


def serving(slice_kind: str, action: str) -> list[Kind]:
    """The kinds a credential for a slice can be of: the slice's own first, then those that need no backend."""
    found = [kind for kind in kinds.values() if kind.name == slice_kind or not kind.at_backend]
    return sorted((kind for kind in found if action in kind.actions), key=lambda kind: kind.name != slice_kind)
