"""What gateways check guests' certificates by: `/pki/ca.pem`, revocation list, OCSP. For everybody, signed, relayed.

OpenBao answers and this hands on: gateways need not reach it. Where it does not answer, nothing is made up: 503, and
a gateway that can tell neither lets nobody in once its list has run out. Whoever asks here has not signed in, so these
questions have threads of their own: a flood of them, while OpenBao hangs, holds up nobody who ends leases.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import TypeVar

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from broker.base.database import clock
from broker.base.errors import BackendDown, Invalid
from broker.base.resilience import ConcurrencyLimit
from broker.keystore.responses import down
from broker.keystore.vault import VaultRefused
from broker.kinds.discovery import the_kind
from broker.kinds.values import Authority
from broker.leases.host_log_ins import some_overdue
from broker.runtime.parts import Parts

router = APIRouter(prefix="/pki", include_in_schema=False)
log = structlog.get_logger(__name__)
LONGEST_QUESTION = 2048
# Said with a list while leases are over that nobody has ended, as when the worker stands still: gateways then end what
# is open by themselves, because an expired certificate is on no list.
OVERDUE = "Guestkey-Overdue"
T = TypeVar("T")
_KEPT_SECONDS = 1.0
# Of a replica's calls to OpenBao, so many may be gateways': they must not keep those who ask for credentials waiting.
_AT_ONCE = 4
# Threads for them, and how many more may wait for one.
_THREADS = 8
_WAITING = 64
_KIND = the_kind(lambda kind: kind.has_authority)
_CHECK_AGAIN = {"Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class _Answer:
    authority: Authority
    overdue: bool


class Relay:
    """Certificate and list as OpenBao has them, kept for a second: gateways may not become a load of their own."""

    def __init__(self) -> None:
        self._limit = ConcurrencyLimit(_AT_ONCE, down)
        self._threads = CapacityLimiter(_THREADS)
        self._lock = Lock()
        self._at = float("-inf")
        self._kept: _Answer | None = None

    async def apart(self, work: Callable[[], Response]) -> Response:
        """The answer, found by a thread that nobody else needs.

        Raises:
            BackendDown: too many are waiting for one.
        """
        if self._threads.statistics().tasks_waiting >= _WAITING:
            raise down()
        return await to_thread.run_sync(work, limiter=self._threads)

    def authority(self, parts: Parts) -> _Answer:
        """The authority's certificate and its revocation list, whole and signed by it.

        Raises:
            BackendDown: OpenBao does not answer, or not sensibly.
        """
        if not self._lock.acquire(timeout=_KEPT_SECONDS):
            raise down()
        try:
            if self._kept is None or monotonic() - self._at > _KEPT_SECONDS:
                self._kept = None
                self._kept = self._entered(parts, lambda: _Answer(_KIND.authority_of(parts.vault), _overdue(parts)))
                self._at = monotonic()
            return self._kept
        finally:
            self._lock.release()

    def answer(self, parts: Parts, question: bytes) -> bytes:
        """OpenBao's answer to an OCSP question.

        Raises:
            Invalid: it is none.
            BackendDown: OpenBao does not answer.
        """
        try:
            return self._entered(parts, lambda: parts.vault.ocsp(question))
        except VaultRefused as error:
            raise _no_question() from error

    def _entered(self, parts: Parts, ask: Callable[[], T]) -> T:
        with self._limit.entered(parts.settings.bao_timeout):
            return ask()


@router.get("/ca.pem")
async def ca(request: Request) -> Response:
    """The certificate guests' certificates are signed with."""
    return await _handed_on(request, lambda kept: kept.certificate_pem, "application/pem-certificate-chain")


@router.get("/crl")
async def crl(request: Request) -> Response:
    """The revocation list, DER (RFC 5280)."""
    return await _handed_on(request, lambda kept: kept.crl_der, "application/pkix-crl")


@router.get("/crl.pem")
async def crl_pem(request: Request) -> Response:
    """The same in PEM, as nginx and OpenVPN read it."""
    return await _handed_on(request, lambda kept: kept.crl_pem, "application/x-pem-file")


@router.post("/ocsp")
async def ocsp(request: Request) -> Response:
    """Whether a certificate is revoked (RFC 6960)."""
    return await _answered(request, await request.body())


@router.get("/ocsp/{question:path}")
async def ocsp_by_address(request: Request, question: str) -> Response:
    """The same, the question in base64 in the address."""
    try:
        return await _answered(request, base64.b64decode(question, validate=True))
    except binascii.Error as error:
        raise _no_question() from error


async def _handed_on(request: Request, written: Callable[[Authority], bytes], media_type: str) -> Response:
    relay: Relay = request.app.state.pki_relay
    parts = request.app.state.parts

    def answer() -> Response:
        kept = relay.authority(parts)
        content = written(kept.authority)
        headers = _CHECK_AGAIN | {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"'}
        if kept.overdue:
            headers[OVERDUE] = "yes"
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return await relay.apart(answer)


async def _answered(request: Request, question: bytes) -> Response:
    if not 0 < len(question) <= LONGEST_QUESTION:
        raise _no_question()
    relay: Relay = request.app.state.pki_relay
    parts = request.app.state.parts
    # Kept by nobody on the way: a certificate can be revoked the next second.
    return await relay.apart(lambda: Response(relay.answer(parts, question), media_type="application/ocsp-response"))


def _overdue(parts: Parts) -> bool:
    # Where that cannot be known, the worker cannot end anything either.
    try:
        with parts.database.transaction() as tx:
            return some_overdue(tx, _KIND.name, clock(tx))
    except (BackendDown, SQLAlchemyError) as error:
        log.warning("pki.overdue_unknown", error=type(error).__name__)
        return True


def _no_question() -> Invalid:
    return Invalid("This is not an OCSP request (RFC 6960).", advice="Send one in DER, up to 2 KB.")
