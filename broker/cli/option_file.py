"""An option file of MariaDB's programs (`--defaults-file`), so that a password is in no argument. Pure.

PyMySQL (`read_default_file`) and MySQL's connector for Python (`option_files`) read it, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from broker.cli.faults import Code, Fault

NAME = "my.cnf"
_OPTIONS = {"host": "host", "port": "port", "user": "username", "password": "password", "ssl-ca": "ssl_ca"}
_OPTIONAL = frozenset({"ssl-ca"})
_WORD = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
# MySQL's connector takes a password's quotation marks for a part of it, and a quoted port for no number.
_BARE = frozenset({"port", "password"})
# The connector knows the options of MariaDB's programs by other names, and without these verifies nothing.
_CONNECTOR = {True: ["ssl_verify_cert=True", "ssl_verify_identity=True"], False: ["ssl_disabled=True"]}


def text(values: Mapping[str, Any]) -> str:
    """The file.

    Raises:
        Fault: what the server sent is not what it should be.
    """
    lines = ["[client]", "protocol=tcp"]
    for option, name in _OPTIONS.items():
        if values.get(name) not in (None, "") or option not in _OPTIONAL:
            lines.append(f"{option}={_written(values, name)}")
    verified = values.get("ssl", "verify") == "verify"
    lines.append("ssl-verify-server-cert" if verified else "skip-ssl")
    lines += ["[connector_python]", *_CONNECTOR[verified]]
    return "\n".join(lines) + "\n"


def schema(values: Mapping[str, Any]) -> str:
    """The database that the view lies in."""
    return str(values.get("relation", "")).partition(".")[0]


def _written(values: Mapping[str, Any], name: str) -> str:
    value = str(values.get(name) or "")
    # A quotation mark cannot be written inside of any.
    if not value or '"' in value or any(unicodedata.category(character) == "Cc" for character in value):
        raise Fault(
            Code.FAULT,
            "The server's answer makes no sense.",
            why=f"The credential has no usable {name}.",
            next_step="guestkey doctor",
        )
    if name in _BARE and _WORD.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\") + '"'
