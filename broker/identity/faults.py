"""Why a sign-in did not succeed: one sentence for the person, and the reason for the operator.

People are told what to do next, never what exactly was wrong: that helps an attacker more. The reason goes to the log
and to the source's page, where admins read the last one, when, and how often.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy import case, or_, select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.errors import BackendDown, GuestkeyError, NotSignedIn
from broker.models import SignInSource, SourceFailure
from broker.runtime.parts import Parts

LONGEST = 300
log = structlog.get_logger(__name__)
_LONGEST_KEPT = 1000
# A crowd that fails for one reason is one line, written once in so long.
_APART = timedelta(seconds=1)


class SignInRefused(NotSignedIn):
    """A sign-in that is not what it must be. `reason` is for the operator."""

    def __init__(self, reason: str, *, detail: str = "The sign-in could not be verified.") -> None:
        super().__init__(detail, advice="Sign in again.", code="sign_in_refused")
        self.reason = reason


class ProviderDown(BackendDown):
    """A provider that does not answer usefully. `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            "Your organisation's sign-in service is not responding correctly.",
            backend="identity_provider",
            advice="Try again in a minute. If it keeps failing, tell your contact at the organisation.",
        )
        self.reason = reason


def quoted(text: object) -> str:
    """What a provider said, as part of a reason: printable, on one line, not long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text) if isinstance(text, str) else ""
    return " ".join(plain[:LONGEST].split())


@contextmanager
def recording_failures(parts: Parts, source: SignInSource) -> Iterator[None]:
    """Note why what is done in the block fails; it fails all the same."""
    try:
        yield
    except (SignInRefused, ProviderDown) as error:
        log.warning("sign_in.failed", source=source.id, issuer=source.issuer, why=error.reason)
        _note(parts, source.id, error.reason)
        raise


def last_failures(tx: Transaction, source_ids: Collection[str]) -> Mapping[str, SourceFailure]:
    """The last failure of each of these sources that had one."""
    found = tx.scalars(select(SourceFailure).where(SourceFailure.source_id.in_(source_ids)))
    return {failure.source_id: failure for failure in found}


def _note(parts: Parts, source_id: str, why: str) -> None:
    try:
        with parts.database.transaction_now() as (tx, now):
            made = insert(SourceFailure).values(source_id=source_id, why=why[:_LONGEST_KEPT], at=now, times=1)
            again = SourceFailure.why == made.excluded.why
            changes = {
                "why": made.excluded.why,
                "at": made.excluded.at,
                "times": case((again, SourceFailure.times + 1), else_=1),
            }
            lately = or_(~again, SourceFailure.at < now - _APART)
            tx.execute(made.on_conflict_do_update(index_elements=["source_id"], set_=changes, where=lately))
    except GuestkeyError as error:
        # The log has it; whoever signs in is to be told why they failed, not that this was not kept.
        log.warning("sign_in.failure_unnoted", source=source_id, code=error.code)
