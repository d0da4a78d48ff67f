"""Why a sign-in did not succeed: one sentence for the person, and the reason for the operator.

People are told what to do next, never what exactly was wrong: that helps an attacker more. The reason goes to the log
and to the source's page (`broker.identity.troubles`), where admins read it.
"""

from __future__ import annotations

from broker.base.errors import BackendDown, NotSignedIn

LONGEST = 300


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
