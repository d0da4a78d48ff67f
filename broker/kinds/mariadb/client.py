"""How guests use a user of MariaDB: an option file (`--defaults-file`), so that a password is in no argument.

PyMySQL (`read_default_file`) and MySQL's connector for Python (`option_files`) read it, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from broker.kinds.client import Credential, Files, Format, KindClient, Program, unusable

_FILE, _VARIABLE = "my.cnf", "GUESTKEY_OPTION_FILE"
_OPTIONS = {"host": "host", "port": "port", "user": "username", "password": "password", "ssl-ca": "ssl_ca"}
_OPTIONAL = frozenset({"ssl-ca"})
_WORD = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
# MySQL's connector takes a password's quotation marks for a part of it, and a quoted port for no number.
_BARE = frozenset({"port", "password"})
# The connector knows the options of MariaDB's programs by other names, and without these verifies nothing.
_CONNECTOR = {True: ["ssl_verify_cert=True", "ssl_verify_identity=True"], False: ["ssl_disabled=True"]}


def option_file(values: Mapping[str, Any]) -> str:
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


def _written(values: Mapping[str, Any], name: str) -> str:
    value = str(values.get(name) or "")
    # A quotation mark cannot be written inside of any.
    if not value or '"' in value or any(unicodedata.category(character) == "Cc" for character in value):
        raise unusable(name)
    if name in _BARE and _WORD.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\") + '"'


def _files(credential: Credential, _folder: Path) -> Files:
    return {_FILE: option_file(credential.values)}


class MariadbClient(KindClient):
    """See `Client`."""

    program = Program("mariadb", "MariaDB's client")
    formats = (
        Format(
            "my-cnf",
            "an option file, for mariadb --defaults-file",
            _files,
            marked=True,
            use="mariadb --defaults-file={out}",
        ),
    )
    file_variables: ClassVar[Mapping[str, str]] = {_VARIABLE: _FILE}
    authority = "ssl_ca"
    of_tables = True

    def opening(self, program: str, credential: Credential, files: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """See `Client.opening`: in the database that the view lies in."""
        relation = str(credential.values.get("relation", ""))
        command = [program, f"--defaults-file={files[_VARIABLE]}", relation.partition(".")[0]]
        return command, [f"You can read {relation}."]


CLIENT = MariadbClient()
