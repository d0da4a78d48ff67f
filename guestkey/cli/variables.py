"""A credential as environment variables: those its tools read, and the same values as GUESTKEY_…. Pure.

Foreign variables that could send it elsewhere, or weaken how the other side is checked, are not inherited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from guestkey.cli.clients import client_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# It is in a file or an agent, and nowhere else.
_NEVER = frozenset({"private_key", "ca_pem"})


def of(kind: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a credential."""
    client = client_of(kind)
    # A name goes into a shell as it is (`get --format env`): what is none is left out, whoever sent it.
    fit = [name for name in values if _NAME.fullmatch(name) and name not in _NEVER]
    known = {name: str(values[name]) for name in fit if values[name] not in (None, "")}
    found = {f"GUESTKEY_{name.upper()}": value for name, value in known.items()}
    of_tools = {variable: known[name] for variable, name in client.variables.items() if name in known}
    return found | of_tools | client.fixed_variables(known)


def foreign(kind: str, present: Mapping[str, str]) -> Iterator[str]:
    """Names of what is present and must not be inherited beside a credential of a kind; our own token never is."""
    client = client_of(kind)
    for name in filter(_NAME.fullmatch, present):
        of_tools = bool(client.foreign) and name.startswith(client.foreign) and name not in client.kept
        if name == "GUESTKEY_TOKEN" or of_tools:
            yield name


def environment(kind: str, values: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, str]:
    """A program's whole environment: what is present without what is foreign, and the credential."""
    dropped = frozenset(foreign(kind, present))
    return {name: value for name, value in present.items() if name not in dropped} | of(kind, values)
