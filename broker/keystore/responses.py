"""OpenBao's answers in the broker's words: their shapes, a refusal, being down. No I/O, and nothing of hvac.

What reads an answer raises `BackendDown` where that is not of the shape expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import requests
import structlog

from broker.base import tls_reasons
from broker.base.errors import BackendDown

log = structlog.get_logger(__name__)
T = TypeVar("T")

_SERIAL = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){0,24}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?")
# What reading an answer raises that is not of the shape expected, a proxy's page for example; hvac raises them too.
MISSHAPEN = (AttributeError, KeyError, IndexError, TypeError, ValueError)


class VaultRefused(Exception):
    """OpenBao answered and said no: a policy, a bad request, a missing thing. Internal: never shown."""


class InvalidResponse(Exception):
    """Something answered that is not OpenBao, or not whole. Internal to `broker.keystore.vault`."""


@dataclass(frozen=True, slots=True)
class ChildToken:
    """A token of one lease, of exactly one path; kept nowhere."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DatabaseCredential:
    """A database user that the database engine made, and the lease it hangs on."""

    username: str
    password: str = field(repr=False)
    lease_id: str


@dataclass(frozen=True, slots=True)
class SignedCertificate:
    """What PKI made: PEM, the certificate of who signed, and the serial as OpenBao writes it."""

    certificate: str
    issuer: str
    serial: str


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """A certificate as OpenBao keeps it, and since when it is revoked, by OpenBao's clock."""

    certificate: str
    revoked_at: datetime | None


def checked_name(name: str) -> str:
    """The name, if it is safe inside a path or policy: `[a-z0-9-]`, up to 128.

    Raises:
        ValueError: anything else; a stray `*` or `/` could widen a policy.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"unsafe name for OpenBao: {name!r}")
    return name


def checked_path(path: str) -> str:
    """The path, if each of its parts is a safe name.

    Raises:
        ValueError: one is not.
    """
    return "/".join(checked_name(part) for part in path.split("/"))


def checked_serial(serial: str) -> str:
    """The serial, if it is hexadecimal pairs with colons between, as OpenBao writes them.

    Raises:
        ValueError: anything else; it becomes part of a path.
    """
    if _SERIAL.fullmatch(serial) is None:
        raise ValueError(f"unsafe serial: {serial!r}")
    return serial


def valid_json(answer: T) -> T:
    """The answer, if it is JSON or deliberately empty.

    Raises:
        Nonsense: hvac hands other answers through as they are.
    """
    if isinstance(answer, requests.Response) and answer.status_code != requests.codes.no_content:
        raise InvalidResponse
    return answer


def part(answer: Any, *keys: str) -> Any:
    """What lies at the keys, one inside the other."""
    with expecting_shape(".".join(keys)):
        for key in keys:
            answer = answer[key]
    return answer


def text(answer: Any, *keys: str) -> str:
    """The text at the keys; nothing else passes for one: what is `null` there must not be handed over as a password."""
    found = part(answer, *keys)
    if not isinstance(found, str) or not found:
        raise _misshapen(*keys)
    return found


def texts(answer: Any, *keys: str) -> list[str]:
    """The list of texts at the keys: a text by itself must not pass for a list of its letters."""
    found = part(answer, *keys)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise _misshapen(*keys)
    return found


def number(answer: Any, *keys: str) -> int:
    """The whole number at the keys."""
    found = part(answer, *keys)
    with expecting_shape(".".join(keys)):
        return int(found)


@contextmanager
def expecting_shape(what: str) -> Iterator[None]:
    """Read an answer inside the block; where it is not of the shape expected, OpenBao counts as down."""
    try:
        yield
    except MISSHAPEN as error:
        raise _misshapen(what) from error


def _misshapen(*keys: str) -> BackendDown:
    log.warning("vault.misshapen_answer", missing=".".join(keys))
    return down()


def why_down(error: BaseException) -> str:
    """Why TLS with OpenBao came to nothing, as the end of a sentence; empty: it was not TLS."""
    refused = tls_reasons.untrusted_certificate_in(error)
    if refused is None:
        return tls_reasons.explain_handshake_error(error)
    # Everybody may read it, so OpenBao's own name is not in it.
    why = tls_reasons.explain_certificate_error(refused, "the name in GUESTKEY_BAO_ADDR").why
    return f"its certificate is not trusted: {why}"


def unreachable(why: str) -> BackendDown:
    """OpenBao does not answer at all, for a reason of `why_down` or for one that nobody knows."""
    return down(f"The key store cannot be used, so no credential can be issued: {why}.") if why else down()


def down(detail: str = "The key store is not responding, so no credential can be issued.") -> BackendDown:
    """OpenBao, or what it must reach, does not answer usefully."""
    return BackendDown(
        detail,
        backend="openbao",
        advice="Try again in a minute. If it keeps failing, tell the operator: /readyz shows what is missing.",
    )
