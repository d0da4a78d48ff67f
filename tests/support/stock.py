"""Slices of PostgreSQL that are real before a test asks for them, made many at a time.

What a slice costs is the log-ins at the dataset's database, four for each. Here one session registers a dozen with the
product's own statements; a test's dataset then takes what it needs. How the worker registers has tests of its own.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from broker.base.ids import new_id
from broker.base.settings import Settings
from broker.kinds.discovery import kinds
from broker.kinds.postgres import sessions, slices
from broker.kinds.values import BoundSlice
from broker.models import Slice
from broker.runtime.parts import vault_of

_MOST = 12


@dataclass(frozen=True)
class Made:
    """A slice that is real: its id, and what the worker would have noted when it registered it."""

    id: str
    rows: int | None
    seen: dict[str, Any] | None

    def record(self, slice_: Slice) -> Slice:
        """Let a slice's record be that of this one."""
        slice_.id, slice_.rows_estimate, slice_.seen, slice_.state = self.id, self.rows, self.seen, "ready"
        return slice_


class Stock:
    """Slices on one connection of one stack; each is taken once."""

    def __init__(self, settings: Settings, connection: str) -> None:
        self._setup, self._settings, self._connection = vault_of(settings, "setup"), settings, connection
        self._left: dict[str, list[Made]] = defaultdict(list)
        self._count: dict[str, int] = defaultdict(lambda: 1)

    def take(self, binding: Mapping[str, Any]) -> Made:
        """One with this binding."""
        name = repr(sorted(binding.items()))
        if not self._left[name]:
            # The first test of a run waits for one or two; where many come, more are made at once.
            self._count[name] = min(_MOST, self._count[name] * 2)
            self._left[name] = self._make(binding, self._count[name])
        return self._left[name].pop(0)

    def _make(self, binding: Mapping[str, Any], count: int) -> list[Made]:
        kind = kinds["postgres"]
        bound = BoundSlice(binding, self._settings.place("postgres", binding))
        ids = [new_id("sl") for _ in range(count)]
        with sessions.registrar_session(self._setup, self._connection, as_server_writes=True) as session:
            mine = threading.get_ident()

            def log_in(*given: Any, **how: Any) -> AbstractContextManager[sessions.Session]:
                # A worker that runs beside, as a thread, has sessions of its own.
                ours = threading.get_ident() == mine
                return nullcontext(session) if ours else sessions.registrar_session(*given, **how)

            with patch.object(slices, "registrar_session", log_in):
                rows = {id_: kind.register(self._setup, id_, bound) for id_ in ids}
        seen = kind.inspect_sources(self._setup, self._connection, dict.fromkeys(ids, binding))
        return [Made(id_, rows[id_], dict(seen[id_] or {}) or None) for id_ in ids]
