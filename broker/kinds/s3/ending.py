"""Ending sessions of an object store: a refusal by name in the bucket's policy, which nobody else's writing may lose.

A session cannot be taken back, and its secret is not ours to try it with. What every store evaluates at every request
is the bucket's policy, so a session is refused there until it would have expired. Many threads and workers do that to
one document: one thread of a process at a time, and of several processes the one that holds a mark in the key store.
The worker has all sessions of a bucket that end together refused in one writing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from time import monotonic, sleep

import structlog

from broker.base.errors import BackendDown
from broker.keystore.vault import Vault, VaultRefused
from broker.kinds.s3.binding import (
    LONGEST_BUCKET_POLICY,
    Denial,
    Denied,
    UnreadablePolicy,
    denied_in,
    lapses,
    with_denied,
)
from broker.kinds.s3.store import FoundObject, Store, StoreRefused, down
from broker.kinds.values import Exposed, NotEnded

log = structlog.get_logger(__name__)
# A mark that has not changed for so long was left by a process that died. Longer than its holder may take.
_LEFT_SECONDS = 15.0
_HOLD_SECONDS = 6.0
_WAIT_SECONDS = 3.0
_POLL_SECONDS = 0.05
# A store that takes longer to apply a policy than this is not waited for, but asked again later.
_WORTH_WAITING = 2.0
# Clocks of one store's machines: its word that a session is over counts only so long after the session's end.
SKEW = timedelta(seconds=5)
# A store checks a request once: one that it has let in, nothing of S3 stops.
LET_IN = "; a transfer begun before may still finish"
CONFIRMED = "s3: the bucket's policy refuses this session" + LET_IN
OVER = "s3: the session is past its end, by the store's own clock" + LET_IN


Outcome = str | Exception
Sessions = Mapping[str, datetime]
# Buckets whose policies are written at once, when many end together.
_BUCKETS_AT_ONCE = 4
# Threads of this process wait here for one another, and need not look again and again for the mark in the key store.
_writing: dict[tuple[str, str], Lock] = defaultdict(Lock)
_seen: dict[str, tuple[int, float]] = {}


@dataclass(frozen=True, slots=True)
class BucketPolicy:
    """The policy of a bucket, in which sessions are refused.

    Args:
        key: the condition key that carries a session's name there.
        settles: seconds until a change of the policy is in force everywhere, as the store promises.
    """

    store: Store
    vault: Vault
    connection: str
    bucket: str
    key: str
    settles: float

    def write(self, sessions: Sessions) -> dict[str, Outcome]:
        """Have sessions refused. Returns those not to `confirm`: over already, or without room."""
        found = self.store.policy(self.bucket)
        over: dict[str, Outcome] = {handle: OVER for handle, until in sessions.items() if found.now > until + SKEW}
        denied = denied_in(found.document)
        missing = {handle: until for handle, until in sessions.items() if handle not in over and handle not in denied}
        if not missing:
            return over
        with _writing[self.connection, self.bucket]:
            again = self._write_all({handle: lapses(until.timestamp()) for handle, until in missing.items()})
        no_room = "The bucket's policy has no room to refuse another session."
        return over | {handle: Exposed(missing[handle], no_room, again=when) for handle, when in again.items()}

    def confirm(self, sessions: Sessions) -> dict[str, Outcome]:
        """What the bucket's policy says of sessions that were written there."""
        found = self.store.policy(self.bucket)
        denied = denied_in(found.document)
        return {handle: self._confirmed(found, denied.get(handle)) for handle in sessions}

    def _confirmed(self, found: FoundObject, denial: Denial | None) -> Outcome:
        if denial is None:
            return NotEnded("the bucket's policy was written, and does not hold the session")
        in_force = datetime.fromtimestamp(denial.written, UTC) + timedelta(seconds=self.settles)
        if found.now < in_force:
            return Exposed(in_force, "The refusal is in the bucket's policy; the store takes so long to apply it.")
        return CONFIRMED

    def _write_all(self, batch: Mapping[str, int]) -> dict[str, datetime]:
        """Write as many as there is room for. Returns the others, and when to try them again."""
        with policy_lock(self.vault, self.store.address, self.bucket) as until:
            found = self.store.policy(self.bucket)
            now = int(found.now.timestamp())
            denied = {
                known: Denial(denial.until, denial.written if now - denial.written < self.settles else 0)
                for known, denial in denied_in(found.document).items()
                if denial.until > now - SKEW.total_seconds()
            }
            written = now if self.settles > _WORTH_WAITING else 0
            fresh = {handle: Denial(lapse, written) for handle, lapse in batch.items() if handle not in denied}
            document, left_out = self._fitting(found, denied, fresh)
            if monotonic() > until:
                raise down("The object store took too long.")
            if len(left_out) < len(fresh):
                self.store.put_policy(self.bucket, document)
            if not left_out:
                return {}
            log.error("s3.no_room", connection=self.connection, bucket=self.bucket, sessions=len(left_out))
            # What lapses first makes room.
            first = min((denial.until for denial in (denied | fresh).values()), default=now)
            return dict.fromkeys(left_out, datetime.fromtimestamp(first, UTC) + 2 * SKEW)

    def _fitting(self, found: FoundObject, denied: Denied, fresh: Denied) -> tuple[str, list[str]]:
        """The policy with as many of the fresh as there is room for, and who is left out."""
        kept, left_out, part = dict(fresh), list[str](), self.store.partition
        while True:
            document = with_denied(found.document, self.bucket, self.key, {**denied, **kept}, partition=part)
            if len(document.encode()) <= LONGEST_BUCKET_POLICY or not kept:
                return document, left_out
            left_out.append(kept.popitem()[0])


def deny_sessions(work: Sequence[tuple[BucketPolicy, Sessions]]) -> dict[str, Outcome]:
    """End sessions of any number of buckets together: each policy is written once, and all are waited for once.

    However many end, and whatever one of them does meanwhile, none waits longer than one alone would.

    Args:
        work: of each bucket, the sessions by handle, and until when each would live.

    Returns:
        By handle what confirmed its end, or why there is none: `Exposed` where the refusal is written but not in force
        everywhere yet, or there is no room for it; `NotEnded` where the policy was written and does not hold it;
        `BackendDown` where store or key store do not answer usefully.
    """
    with ThreadPoolExecutor(_BUCKETS_AT_ONCE) as pool:
        outcomes = _together(pool.map(lambda of: _each(of[0].write, of[1]), work))
        waiting = [
            (policy, {handle: until for handle, until in sessions.items() if handle not in outcomes})
            for policy, sessions in work
        ]
        waiting = [(policy, left) for policy, left in waiting if left]
        sleep(max((policy.settles for policy, _ in waiting if policy.settles <= _WORTH_WAITING), default=0))
        return outcomes | _together(pool.map(lambda of: _each(of[0].confirm, of[1]), waiting))


def _each(act: Callable[[Sessions], dict[str, Outcome]], sessions: Sessions) -> dict[str, Outcome]:
    """What an act says of each; where it fails, that of all."""
    try:
        return act(sessions)
    except (NotEnded, Exposed, BackendDown, VaultRefused) as error:
        return dict.fromkeys(sessions, error)
    except UnreadablePolicy as error:
        return dict.fromkeys(sessions, NotEnded(str(error)))
    except StoreRefused as error:
        why = f"the store refuses to show or change the bucket's policy: {error.code}"
        return dict.fromkeys(sessions, NotEnded(why))


def _together(found: Iterable[dict[str, Outcome]]) -> dict[str, Outcome]:
    return {handle: outcome for one in found for handle, outcome in one.items()}


@contextmanager
def policy_lock(vault: Vault, address: str, bucket: str) -> Iterator[float]:
    """The mark of a bucket, for one reading and writing of its policy; yields until when, by `monotonic`.

    Args:
        vault: as the ender.
        address: the store's; connections that share a bucket share its mark.

    Raises:
        BackendDown: somebody else holds it, or the key store does not answer.
        NotEnded: the key store refuses it.
    """
    path, me, give_up = lock_path(address, bucket), secrets.token_hex(8), monotonic() + _WAIT_SECONDS
    try:
        while True:
            content, version = vault.entry(path)
            if not content.get("holder") or _is_stale(path, version):
                began = monotonic()
                if vault.keep_if(path, {"holder": me}, version):
                    break
            if monotonic() > give_up:
                raise down("Another worker is writing the bucket's policy.")
            sleep(_POLL_SECONDS)
        try:
            yield began + _HOLD_SECONDS
        finally:
            try:
                vault.keep_if(path, {"holder": ""}, version + 1)
            except BackendDown:
                # What was written stands; the mark is passed over once it has been left for long enough.
                log.warning("s3.mark_left", path=path)
    except VaultRefused as error:
        raise NotEnded("the key store refuses the mark for writing the bucket's policy") from error


def lock_path(address: str, bucket: str) -> str:
    """Where in the key store a bucket's mark is."""
    return "endings/" + hashlib.sha256(f"{address}\n{bucket}".encode()).hexdigest()[:40]


def _is_stale(path: str, version: int) -> bool:
    """Whether a mark has stood unchanged for so long, as seen by this process, that nobody can be behind it."""
    seen, since = _seen.get(path, (-1, 0.0))
    if seen != version:
        _seen[path] = (version, monotonic())
        return False
    return monotonic() - since > _LEFT_SECONDS
