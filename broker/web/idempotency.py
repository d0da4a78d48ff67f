"""Requests that may be repeated: the first answer is kept for a day and given again for the same key.

Key, act and answer are one transaction: a repeat that comes meanwhile waits for it, and an act that failed leaves no
key behind. Answers kept here never hold a secret; leases keep their own promise (`broker.leases.issuing`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import Request

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import Invalid
from broker.identity.caller import Caller
from broker.runtime import stored_responses
from broker.runtime.parts import Parts
from broker.web.proposed import PROPOSED, Proposed

_KEY = re.compile(r"[!-~]{1,200}")
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", description="Any text you choose; a repeat with the same key gets the first answer."
    ),
]
Act = Callable[[Transaction, datetime], BaseModel]


@dataclass(frozen=True, slots=True)
class Once:
    """One request and its key; `key` None means that a repeat is a new request."""

    key_hash: bytes | None
    request_hash: bytes


def checked_key(key: str | None) -> str | None:
    """The key, if it is one.

    Raises:
        Invalid: it is empty, too long, or holds more than printable ASCII.
    """
    if key is not None and _KEY.fullmatch(key) is None:
        raise Invalid("An idempotency key is 1 to 200 printable ASCII characters.", field="/header/Idempotency-Key")
    return key


def once(request: Request, caller: Caller, body: BaseModel, key: str | None) -> Once:
    """Name a request, so that its repeat is recognised; a key counts for one caller only.

    Raises:
        Invalid: the key is none, or the body cannot be written down.
    """
    checked_key(key)
    try:
        said = f"{request.method}\n{request.url.path}\n{body.model_dump_json()}"
    except ValueError as error:
        raise Invalid("The body contains text that JSON cannot represent, such as a lone surrogate.") from error
    key_hash = hashlib.sha256(f"{caller.subject}\n{key}".encode()).digest() if key else None
    return Once(key_hash, hashlib.sha256(said.encode()).digest())


def answer(parts: Parts, this: Once, act: Act, *, status: int = 201) -> JSONResponse:
    """Do it and answer, or repeat the answer it got before; what waits for a second person is answered with 202.

    Raises:
        Conflict: the key was used for another request.
    """
    with parts.database.transaction() as tx:
        now = clock(tx)
        kept = stored_responses.claim(tx, this.key_hash, this.request_hash, now) if this.key_hash else None
        if kept is not None:
            return JSONResponse(kept.body, kept.status, headers={"Idempotent-Replayed": "true"})
        shown = act(tx, now)
        status = PROPOSED if isinstance(shown, Proposed) else status
        body: dict[str, Any] = shown.model_dump(mode="json")
        if this.key_hash is not None:
            stored_responses.keep(tx, this.key_hash, status, body)
    return JSONResponse(body, status)
