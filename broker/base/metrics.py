"""Numbers for the operator, in Prometheus' terms. Counted where things happen; shown by `broker.web.health`.

No label ever holds a name, an id or anything a caller typed: their number must stay small and they must say nothing.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

decisions = Counter("guestkey_decisions", "Decisions of the gate at issuance.", ["outcome", "kind"])
issue_seconds = Histogram(
    "guestkey_issue_seconds", "From decision to hand-over, backends included.", ["kind"], buckets=_FAST
)
leases_ended = Counter("guestkey_leases_ended", "Attempts to end a lease, by what came of them.", ["outcome", "kind"])
end_seconds = Histogram(
    "guestkey_end_seconds",
    "From the wish to end a lease to the backend's confirmation.",
    ["kind"],
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
strays = Counter("guestkey_strays", "Credentials found in a backend without a record, ended.", ["kind"])
vanished = Counter(
    "guestkey_vanished", "Leases that were active while their credential was gone from its backend, ended.", ["kind"]
)
notices = Counter("guestkey_notices", "Attempts to deliver a notice, by what came of them.", ["way", "outcome"])
notice_faults = Counter("guestkey_notice_faults", "Rounds of telling people that failed, by what was done.", ["part"])
backend_faults = Counter("guestkey_backend_faults", "Backends that did not answer usefully in time.", ["backend"])
log_lines_lost = Counter("guestkey_log_lines_lost", "Lines of the log that could not be written.")
anonymous_refusals = Counter("guestkey_anonymous_refusals", "Requests refused before anybody was recognised.", ["code"])
requests = Histogram(
    "guestkey_request_seconds", "Time to answer, by route.", ["method", "route", "status"], buckets=_FAST
)
