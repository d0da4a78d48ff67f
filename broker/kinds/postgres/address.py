"""Where a customer's database is, and how it is reached: over TLS that proves the server's name, unless told otherwise.

Why a database let nobody in is told by the codes of its answer and of TLS, never by its words: servers speak their
administrator's language, and libpq hands on words without a code where a log-in fails. So the log-in that failed is
tried once more with asyncpg, which keeps PostgreSQL's codes (appendix A of its manual).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import idna
import psycopg

from broker.base.database import bounded
from broker.base.errors import BackendDown, Invalid
from broker.base.settings import is_loopback
from broker.base.tls_reasons import explain_certificate_error as certificate_reason
from broker.kinds.connecting import OptionMissing, checked_name
from broker.kinds.postgres.sessions import Session

STRICT = "verify-full"
WEAKER = ("verify-ca", "require")
NONE = "disable"
OLDEST = 16
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 20
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*")
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL.
_OTHER_NAME = (62, 64)
_NO_SUCH_DATABASE = "3D000"
_CLOSING_SECONDS = 0.2
# What a server that runs answers while it takes nobody: starting, stopping, full.
_NOT_NOW = ("57P03", "57P01", "53300")
_Bounded = bounded(_STATEMENT_SECONDS + 1)


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
        raise _reason(place, user, password) from error


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


class LoginRefused(Exception):
    """The database is there and does not let this login in."""


def _reason(place: Address, user: str, password: str) -> LoginRefused | BackendDown:
    """What a failed log-in failed at, as the error to raise."""
    import asyncpg

    where = f"{place.host}:{place.port}"
    try:
        asyncio.run(_log_in(place, user, password))
    except asyncpg.PostgresError as error:
        return _said(str(error.sqlstate), where, place.dbname, user)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OTHER_NAME:
            return _down(
                f"The certificate of {where} is not for the name {place.host}.",
                "Give the name the certificate is for, or have a certificate made for this name.",
            )
        why = certificate_reason(error, place.host).why
        return _down(
            f"The certificate of {where} is not trusted by the authority in {place.ca_file}: {why}.",
            "Give the right --ca-file. If it is right, something else answers there: find out what.",
        )
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        # asyncpg's own, of no further class, for a server that declines TLS; of the system's all are subclasses.
        if type(error) is ConnectionError:
            return _down(
                f"The database at {where} has TLS switched off.",
                "Set ssl = on with a certificate and key in its postgresql.conf.",
            )
    return _down(
        f"The database at {where} does not answer.",
        "Check host, port and firewall, from this machine and from OpenBao's.",
    )


def _said(code: str, where: str, dbname: str, user: str) -> LoginRefused | BackendDown:
    if code == "28P01":
        return LoginRefused(f"The database refuses the login {user}: wrong password, or no such login.")
    if code.startswith("28") or code == "42501":
        return LoginRefused(
            f"The database does not let {user} in from here: its pg_hba.conf, its rights on the database, or NOLOGIN."
        )
    if code == _NO_SUCH_DATABASE:
        return _down(f"There is no database {dbname} at {where}.", "Give its name with --dbname.")
    if code in _NOT_NOW:
        return _down(f"The database at {where} takes no log-ins now ({code}).", "Try again once it runs and has room.")
    return _down(f"The database at {where} refuses log-ins with the code {code}.", "Its log says why.")


async def _log_in(place: Address, user: str, password: str) -> None:
    import asyncpg

    try:
        opened = await asyncpg.connect(
            host=place.host,
            port=place.port,
            database=place.dbname,
            user=user,
            password=password,
            ssl=_context(place) or "disable",
            timeout=_CONNECT_SECONDS,
        )
        await opened.close(timeout=_CONNECT_SECONDS)
    finally:
        # A connection that was refused is closed by the loop, once the server has closed its end.
        await asyncio.sleep(_CLOSING_SECONDS)


def _context(place: Address) -> ssl.SSLContext | None:
    if place.tls == NONE:
        return None
    context = ssl.create_default_context(cafile=str(place.ca_file) if place.ca_file else None)
    context.check_hostname = place.tls == STRICT
    if place.tls == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _down(detail: str, advice: str) -> BackendDown:
    return BackendDown(detail, backend="postgresql", advice=advice)
