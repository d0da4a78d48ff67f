"""Why a database let nobody in: by the codes of its answer and of TLS, never by its words.

Servers speak their administrator's language, and libpq hands on words without a code where a log-in fails. So the
log-in that failed is tried once more with asyncpg, which keeps PostgreSQL's codes (appendix A of its manual).
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from broker.base.errors import BackendDown
from broker.base.tls_reasons import explain_certificate_error as certificate_reason

_SECONDS = 5
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL.
_OTHER_NAME = (62, 64)
_NO_SUCH_DATABASE = "3D000"
_CLOSING_SECONDS = 0.2
# What a server that runs answers while it takes nobody: starting, stopping, full.
_NOT_NOW = ("57P03", "57P01", "53300")


class LoginRefused(Exception):
    """The database is there and does not let this login in."""


def reason(
    address: tuple[str, int, str], login: tuple[str, str], tls: str, ca_file: Path | None
) -> LoginRefused | BackendDown:
    """What a failed log-in failed at, as the error to raise.

    Args:
        address: host, port and database.
        login: user and password.
        tls: libpq's `sslmode`: verify-full, verify-ca, require or disable.
    """
    import asyncpg

    host, port, dbname = address
    where = f"{host}:{port}"
    try:
        asyncio.run(_log_in(address, login, _context(tls, ca_file)))
    except asyncpg.PostgresError as error:
        return _said(str(error.sqlstate), where, dbname, login[0])
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _OTHER_NAME:
            return _down(
                f"The certificate of {where} is not for the name {host}.",
                "Give the name the certificate is for, or have a certificate made for this name.",
            )
        why = certificate_reason(error, host).why
        return _down(
            f"The certificate of {where} is not trusted by the authority in {ca_file}: {why}.",
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


async def _log_in(address: tuple[str, int, str], login: tuple[str, str], context: ssl.SSLContext | None) -> None:
    import asyncpg

    host, port, dbname = address
    try:
        opened = await asyncpg.connect(
            host=host,
            port=port,
            database=dbname,
            user=login[0],
            password=login[1],
            ssl=context or "disable",
            timeout=_SECONDS,
        )
        await opened.close(timeout=_SECONDS)
    finally:
        # A connection that was refused is closed by the loop, once the server has closed its end.
        await asyncio.sleep(_CLOSING_SECONDS)


def _context(tls: str, ca_file: Path | None) -> ssl.SSLContext | None:
    if tls == "disable":
        return None
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.check_hostname = tls == "verify-full"
    if tls == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _down(detail: str, advice: str) -> BackendDown:
    return BackendDown(detail, backend="postgresql", advice=advice)
