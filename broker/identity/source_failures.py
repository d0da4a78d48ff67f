"""Why sign-ins at a source fail, kept for the admins who can mend it: the last reason, when, and how often."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import structlog
from sqlalchemy import case, or_, select
from sqlalchemy.dialects.postgresql import insert

from broker.base.database import Transaction
from broker.base.database import now as clock
from broker.base.errors import GuestkeyError
from broker.identity.faults import ProviderDown, SignInRefused
from broker.models import SignInSource, SourceFailure
from broker.runtime.parts import Parts

log = structlog.get_logger(__name__)
LONGEST = 1000
# A crowd that fails for one reason is one line, written once in so long.
_APART = timedelta(seconds=1)


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
        with parts.database.transaction() as tx:
            now = clock(tx)
            made = insert(SourceFailure).values(source_id=source_id, why=why[:LONGEST], at=now, times=1)
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
