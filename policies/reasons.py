"""The sentences under a denied request: what the gate says, and what to do, for every reason but those of conditions.

A condition says its own (`conditions.py`). Codes never change their meaning; docs/policy.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from .decision import Reason

_ADMIN = "Ask an admin of the organisation."
_OWNER = "Ask the dataset's owner."
_REQUEST = "Request a role on it: `guestkey request new`."
# Names in braces are filled in by `reason`. The grant's own bound has the code of the rule's.
_REASONS: Mapping[str, Reason] = {
    reason.code: reason
    for reason in (
        Reason("closed", "Guestkey is closed.", "Ask an admin of the organisation to open it.", "someone"),
        Reason("caller_unknown", "You are not signed in.", "Sign in first.", "you"),
        Reason(
            "person_pending",
            "An admin has not confirmed you yet.",
            "Ask an admin of the organisation to confirm it.",
            "someone",
        ),
        Reason("caller_suspended", "This account is suspended.", _ADMIN, "someone"),
        Reason("vendor_unknown", "Your vendor is not known.", _ADMIN, "someone"),
        Reason("vendor_onboarding", "Your vendor has not been activated yet.", _ADMIN, "someone"),
        Reason("vendor_suspended", "Your vendor is suspended.", _ADMIN, "someone"),
        Reason("vendor_offboarded", "Your vendor was offboarded.", _ADMIN, "someone"),
        Reason(
            "dataset_unknown",
            "There is no such dataset, or it is not offered to you.",
            "Check the name, or ask the person who invited you to have it offered.",
            "someone",
        ),
        Reason("dataset_suspended", "The dataset is suspended.", _OWNER, "someone"),
        Reason("dataset_retired", "The dataset is retired.", _OWNER, "someone"),
        Reason("retention_over", "The dataset's retention has ended.", _OWNER, "someone"),
        Reason(
            "labelled_by_you",
            "You chose this dataset's labels, which decide who has access, so you cannot read it.",
            "Ask someone else to read it, or ask two other people to propose and approve its labels again.",
            "someone",
        ),
        Reason("no_grant", "You have no grant on this dataset.", _REQUEST, "you"),
        Reason("grant_ended", "Your grant has ended.", _REQUEST, "you"),
        Reason("grant_not_started", "Your grant has not started.", "Wait until it starts.", "time"),
        Reason(
            "grant_held",
            "Your grant must be confirmed first, because the records were restored from a backup.",
            "Ask an admin of the organisation to confirm it.",
            "someone",
        ),
        Reason("slice_unknown", "The dataset has no such slice.", "`guestkey dataset show` lists its slices.", "you"),
        Reason("slice_unnamed", "You can use several slices: {slices}.", "Name one of them.", "you", temporary=True),
        Reason("slice_not_granted", "Your grant covers only the slice {granted!r}.", "Use that slice.", "you"),
        Reason(
            "slice_changed",
            "The table behind this slice has changed since its owner checked it.",
            "Ask the dataset's owner to check the table and confirm the slice.",
            "someone",
        ),
        Reason(
            "slice_not_ready",
            "The slice is still being prepared.",
            "Try again in a minute.",
            "time",
            temporary=True,
        ),
        Reason(
            "bound_by_you",
            "You bound the slice {name!r} to its data, so you cannot read it.",
            "Ask someone else to read it, or use another slice.",
            "someone",
        ),
        Reason("action_not_served", "This slice does not allow {action!r}.", "Ask its owner.", "someone"),
        Reason("lifetime_invalid", "A lifetime is a positive number of seconds.", "Ask again.", "you"),
        Reason(
            "lifetime_too_long",
            "{asked} s was requested; your grant allows {allowed} s.",
            "Request {allowed} s or less.",
            "you",
        ),
        Reason(
            "no_rule",
            "No rule allows your role to {action} this slice.",
            "Request another slice or role.",
            "someone",
        ),
        Reason("rule_denies", "A rule forbids this.", "Ask the dataset's owner why.", "someone"),
        Reason(
            "rules_missing",
            "The rules cannot be loaded, so all access is denied.",
            "Tell the operator: /readyz shows what is missing.",
            "someone",
        ),
    )
}


def reason(code: str, *, rule: str | None = None, opens_at: datetime | None = None, **names: object) -> Reason:
    """The reason of a code, with the names its sentence holds filled in.

    Args:
        rule: the rule that denies, where one does.
        opens_at: when it passes by itself, where that is known.
    """
    text = _REASONS[code]
    sentence, advice = text.sentence.format(**names), text.advice.format(**names)
    return replace(text, sentence=sentence, advice=advice, rule=rule, opens_at=opens_at)
