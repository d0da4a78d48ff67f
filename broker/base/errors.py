"""What can go wrong, in the broker's own words. Nothing here knows HTTP: `broker.web.problems` renders these.

Every error carries a stable `code`, a sentence for a person (`detail`) and what to do next (`advice`).
Messages of backends never enter them; those go to the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.policies import Decision


class GuestkeyError(Exception):
    """The root: anything the broker refuses or cannot do, on purpose."""

    code = "error"

    def __init__(self, detail: str, *, advice: str = "", code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = advice
        if code is not None:
            self.code = code


class Invalid(GuestkeyError):
    """The input is malformed or breaks a named rule; nothing was changed. `field` is a JSON pointer."""

    code = "invalid"

    def __init__(self, detail: str, *, field: str = "", advice: str = "", code: str | None = None) -> None:
        super().__init__(detail, advice=advice, code=code)
        self.field = field


class NotSignedIn(GuestkeyError):
    """Nobody could be recognised behind the request: no session, an ended one, or an unknown token."""

    code = "not_signed_in"


class FactorNeeded(GuestkeyError):
    """The second factor is missing or stale for this session (RFC 9470).

    `max_age` is the freshness asked for, in seconds; `enrolled` says whether the person has a factor at all.
    """

    code = "insufficient_user_authentication"

    def __init__(self, detail: str, *, max_age: int, enrolled: bool = True, advice: str = "") -> None:
        super().__init__(detail, advice=advice)
        self.max_age = max_age
        self.enrolled = enrolled


class Forbidden(GuestkeyError):
    """The caller is known but may not do this; for things it may know to exist."""

    code = "forbidden"


class Denied(GuestkeyError):
    """The gate said no. Carries the whole decision; already recorded and committed when raised."""

    code = "denied"

    def __init__(self, decision: Decision, *, decision_id: str = "") -> None:
        super().__init__("No credential was issued.")
        self.decision = decision
        self.decision_id = decision_id


class NotFound(GuestkeyError):
    """It does not exist, or does not exist for this caller: both read the same."""

    code = "not_found"


class Conflict(GuestkeyError):
    """The state has moved on or a limit is reached: the same request cannot succeed now."""

    code = "conflict"


class TooMany(GuestkeyError):
    """A rate limit or a lockout. `retry_after` is in seconds."""

    code = "too_many_requests"

    def __init__(self, detail: str, *, retry_after: int, advice: str = "") -> None:
        super().__init__(detail, advice=advice)
        self.retry_after = retry_after


class BackendDown(GuestkeyError):
    """OpenBao, PostgreSQL or an identity provider did not answer usefully in time. `backend` names it."""

    code = "backend_down"

    def __init__(self, detail: str, *, backend: str, advice: str = "") -> None:
        super().__init__(detail, advice=advice)
        self.backend = backend
