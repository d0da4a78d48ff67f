"""Where a customer's database is, and how it is reached: over TLS that proves the server's name, unless told otherwise.

Errors here are for the operator's own terminal, so they may say what libpq said; no secret is ever part of that.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote

import idna
import psycopg

from broker.base.database import bounded
from broker.base.errors import Invalid
from broker.base.settings import is_loopback
from broker.kinds.connecting import OptionMissing, checked_name
from broker.kinds.postgres.connection_errors import reason

STRICT = "verify-full"
WEAKER = ("verify-ca", "require")
NONE = "disable"
OLDEST = 16
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 20
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*")
_Bounded = bounded(_STATEMENT_SECONDS + 1)
Session = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Address:
    """A database under the name slices will call it by. `ca_file` is read by this process, OpenBao and the worker."""

    name: str
    host: str
    port: int
    dbname: str
    tls: str = STRICT
    ca_file: Path | None = None

    def url(self, user: str, password: str) -> str:
        """`postgresql://…` for libpq, everything quoted."""
        return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{self.tail}"

    @property
    def template(self) -> str:
        """The same for OpenBao, which fills in user and password itself."""
        return "postgresql://{{username}}:{{password}}@" + self.tail

    @property
    def tail(self) -> str:
        """Host, port, database and TLS, as both addresses end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        ca_file = f"&sslrootcert={quote(str(self.ca_file), safe='/')}" if self.ca_file else ""
        return f"{host}:{self.port}/{quote(self.dbname, safe='')}?sslmode={self.tls}{ca_file}"


def checked(
    name: str, host: str, port: int, dbname: str, tls: str, ca_file: Path | None, *, unsafe_tls: bool
) -> Address:
    """A place whose every part is well-formed and whose TLS is strict, or knowingly weaker.

    Raises:
        Invalid: naming the option that is wrong.
    """
    checked_name(name)
    host = _host(host)
    if not 1 <= port <= 65535:
        raise Invalid("A port is between 1 and 65535.", field="/port")
    if not 1 <= len(dbname.encode()) <= 63 or not dbname.isprintable() or "{" in dbname or "}" in dbname:
        raise Invalid("A database's name has 1 to 63 bytes, all of them printable, and no braces.", field="/dbname")
    _check_tls(host, tls, ca_file, unsafe_tls=unsafe_tls)
    return Address(name, host, port, dbname, tls, None if tls in (NONE, "require") else ca_file)


def _check_tls(host: str, tls: str, ca_file: Path | None, *, unsafe_tls: bool) -> None:
    if tls == NONE:
        if not is_loopback(host):
            raise Invalid(
                "Without TLS everybody on the way reads the passwords and the data.",
                field="/tls",
                advice="Use --tls verify-full. Only a database on this very machine may be reached without.",
            )
        return
    if tls not in (STRICT, *WEAKER):
        raise Invalid(
            "TLS is verify-full, or, knowingly unsafe, verify-ca, require or disable.",
            field="/tls",
            advice="Modes that fall back to no TLS are never used.",
        )
    if tls in WEAKER and not unsafe_tls:
        raise Invalid(
            f"With {tls} another server can pose as this database and be given the passwords.",
            field="/tls",
            advice="Use verify-full, or add --unsafe-tls if you accept that.",
        )
    if tls == "require":
        return
    if ca_file is None:
        raise OptionMissing(
            "The certificate authority of the database's certificate is not named.",
            field="/ca_file",
            advice="Give --ca-file; for a public one that is usually /etc/ssl/certs/ca-certificates.crt.",
        )
    if not ca_file.is_absolute():
        raise Invalid(
            "The CA file must be named from the root.",
            field="/ca_file",
            advice="OpenBao and the worker read a file of that very name on their machines.",
        )
    try:
        ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"No certificates can be read from {ca_file}.", field="/ca_file") from error


def open_session(place: Address, user: str, password: str) -> Session:
    """Log in, over TLS as the place demands it.

    Raises:
        LoginRefused: the server does not let this login in.
        BackendDown: it cannot be reached, or its certificate does not prove that it is the right one.
    """
    try:
        return _Bounded.connect(
            place.url(user, password),
            connect_timeout=_CONNECT_SECONDS,
            autocommit=True,
            application_name="guestkey",
            options=f"-c statement_timeout={_STATEMENT_SECONDS * 1000} -c lock_timeout=5000",
            tcp_user_timeout=_CONNECT_SECONDS * 1000,
            gssencmode="disable",
        )
    except psycopg.OperationalError as error:
        # libpq hands on the server's words, in whatever language the server speaks, and no code.
        raise reason((place.host, place.port, place.dbname), (user, password), place.tls, place.ca_file) from error


def _host(text: str) -> str:
    """An address as it is, or a name in the letters DNS has: `müller.example.` is `xn--mller-kva.example`."""
    name = text.removesuffix(".")
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    try:
        # Underscores are no part of host names, but of names that servers have all the same.
        found = name if name.isascii() else idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        found = ""
    if _HOST.fullmatch(found) is None:
        raise Invalid("That is neither a host's name nor its address.", field="/host", advice="Give one host.")
    return found
