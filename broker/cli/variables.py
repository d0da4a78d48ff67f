"""A credential as environment variables: those its tools read, and the same values as GUESTKEY_…. Pure.

Foreign variables that could send it elsewhere, or weaken how the other side is checked, are not inherited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# What of a tool's environment may stay: nothing that names another place, person or file.
_LIBPQ_KEPT = frozenset({"PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGCONNECT_TIMEOUT"})
_AWS_KEPT = frozenset({"AWS_CA_BUNDLE", "AWS_DEFAULT_OUTPUT", "AWS_MAX_ATTEMPTS", "AWS_PAGER", "AWS_RETRY_MODE"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LIBPQ = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "username",
    "PGPASSWORD": "password",
    "PGSSLMODE": "sslmode",
    "PGSSLROOTCERT": "sslrootcert",
}
_AWS = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_REGION": "region",
    "AWS_DEFAULT_REGION": "region",
    "AWS_ENDPOINT_URL_S3": "endpoint_url",
    "AWS_CA_BUNDLE": "ca_file",
}
# It is in a file or an agent, and nowhere else.
_NEVER = frozenset({"private_key", "ca_pem"})


def of(values: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a credential."""
    # A name goes into a shell as it is (`get --format env`): what is none is left out, whoever sent it.
    fit = [name for name in values if _NAME.fullmatch(name) and name not in _NEVER]
    known = {name: str(values[name]) for name in fit if values[name] not in (None, "")}
    found = {f"GUESTKEY_{name.upper()}": value for name, value in known.items()}
    if _for_aws(values):
        found |= _named(_AWS, known)
        if "endpoint_url" not in known:
            # Of AWS itself: what a profile says of another store must not get this.
            found["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    elif "dbname" in known:
        found |= _named(_LIBPQ, known)
    return found


def foreign(values: Mapping[str, Any], present: Mapping[str, str]) -> Iterator[str]:
    """Names of what is present and must not be inherited beside this credential; our own token never is."""
    for name in filter(_NAME.fullmatch, present):
        libpq = name.startswith("PG") and name not in _LIBPQ_KEPT and not _for_aws(values)
        aws = name.startswith("AWS_") and name not in _AWS_KEPT and _for_aws(values)
        if name == "GUESTKEY_TOKEN" or libpq or aws:
            yield name


def environment(values: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, str]:
    """A program's whole environment: what is present without what is foreign, and the credential."""
    dropped = frozenset(foreign(values, present))
    return {name: value for name, value in present.items() if name not in dropped} | of(values)


def _for_aws(values: Mapping[str, Any]) -> bool:
    return "access_key_id" in values


def _named(names: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    return {variable: known[name] for variable, name in names.items() if name in known}
