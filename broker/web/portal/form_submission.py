"""What forms share: doing what one asks, and showing on the form's own page, filled as it was, why it was not done.

A second factor is asked for in that same form: the code or the passkey's answer comes with the fields it guards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from fastapi.responses import RedirectResponse
from starlette.responses import Response

from broker.base.errors import (
    BackendDown,
    Conflict,
    FactorNeeded,
    Forbidden,
    GuestkeyError,
    Invalid,
    NotFound,
    TooMany,
)
from broker.identity import factors, passkeys, totp
from broker.identity.http import renew_session
from broker.web.portal.pages import duration
from broker.web.portal.viewer import Viewer, seen_again
from broker.web.problems import status_of

# As fresh as for a credential, for acts that open something or close much (the API asks for the same).
FRESH_SECONDS = 900
_SHOWN_IN_PLACE = (Invalid, Conflict, Forbidden, NotFound, TooMany, BackendDown)
_MOST_ANSWER = 16 * 1024
Needs = Callable[["Viewer", Mapping[str, str]], int | None]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a form was not done; `field` is the id of the field to mend, if it is one."""

    title: str
    detail: str
    advice: str = ""
    field: str = ""
    status: int = 422


@dataclass(frozen=True, slots=True)
class Panel:
    """The question for a second factor: why it is asked, and with what it can be answered.

    `interrupts`: it was put because a form was sent, so it takes the focus.
    """

    why: str
    enrolled: bool
    options: str | None
    codes: bool
    interrupts: bool = True
    code: str = ""
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class FormFailure:
    """What is shown when a form was not done: an error, or the question for a second factor."""

    viewer: Viewer
    trouble: Trouble | None = None
    panel: Panel | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the page that shows it."""
        found = self.trouble or (self.panel.trouble if self.panel else None)
        return found.status if found else 401


def submit(
    viewer: Viewer,
    sent: Mapping[str, str],
    do: Callable[[Viewer], Response],
    rerender: Callable[[FormFailure], Response],
    *,
    needs: Needs | None = None,
) -> Response:
    """Do what a form asks, or show the form again.

    A code or a passkey's answer that came with it is used up only if it is needed: a form sent twice asks once.

    Args:
        sent: the form's fields.
        do: does it.
        rerender: answers with the form's page and the failure.
        needs: how fresh a second factor, in seconds, the act still lacks; None: it lacks none.
    """
    proven = False
    try:
        missing = needs(viewer, sent) if needs else None
        if missing is not None:
            if not _answered(sent):
                return rerender(FormFailure(viewer, panel=asked(viewer, missing)))
            viewer = _proven(viewer, sent)
            proven = True
        answer = do(viewer)
    except FactorNotProven as error:
        lacking = FRESH_SECONDS if missing is None else missing
        return rerender(FormFailure(viewer, panel=asked(viewer, lacking, sent, error.trouble)))
    except FactorNeeded as error:
        answer = rerender(FormFailure(viewer, panel=asked(viewer, error.max_age)))
    except _SHOWN_IN_PLACE as error:
        answer = rerender(FormFailure(viewer, trouble=trouble_of(error)))
    if proven:
        renew_session(viewer.request, answer)
    return answer


def fresh(viewer: Viewer, _sent: Mapping[str, str]) -> int | None:
    """What acts lack that open something or close much: see `submit`."""
    at = viewer.caller.factor_at
    stale = at is None or (viewer.now - at).total_seconds() > FRESH_SECONDS
    return FRESH_SECONDS if stale else None


def with_this_form(_viewer: Viewer, _sent: Mapping[str, str]) -> int | None:
    """What changing one's own factors lacks: one of them with this very form, however fresh the session is."""
    return 0


def asked(viewer: Viewer, max_age: int, sent: Mapping[str, str] | None = None, trouble: Trouble | None = None) -> Panel:
    """The question for a second factor proven at most `max_age` seconds ago."""
    with viewer.parts.database.transaction() as tx:
        held = factors.listed(tx, viewer.caller.id)
    options = passkeys.proof_options(viewer.parts, viewer.caller) if held.passkeys else None
    return Panel(
        why=f"This needs a second factor confirmed in the last {duration(max_age)}."
        if max_age
        else "To change your second factors, confirm with one of them.",
        enrolled=viewer.caller.factor_enrolled,
        options=json.dumps(options) if options else None,
        codes=held.totp,
        code=(sent or {}).get("code", "")[:20],
        trouble=trouble,
    )


def go(path: str) -> RedirectResponse:
    """Where a form leads once it is done: a page of ours, got with GET."""
    return RedirectResponse(path, 303)


def trouble_of(error: GuestkeyError) -> Trouble:
    """An error, as the summary on a page shows it."""
    field = error.field.removeprefix("/") if isinstance(error, Invalid) else ""
    title = "There is a problem" if field else "Nothing was changed"
    return Trouble(title, error.detail, error.advice, field, status_of(error))


class FactorNotProven(Exception):
    """A code or a passkey's answer that came with a form did not count."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


def _answered(sent: Mapping[str, str]) -> bool:
    return bool(sent.get("passkey") or sent.get("code", "").strip())


def _proven(viewer: Viewer, sent: Mapping[str, str]) -> Viewer:
    try:
        if sent.get("passkey"):
            proof = passkeys.prove(viewer.parts, viewer.caller, credential_of(sent["passkey"]))
        else:
            proof = totp.prove(viewer.parts, viewer.caller, sent["code"])
    except (Invalid, Conflict, TooMany, BackendDown) as error:
        shown = trouble_of(error)
        detail = f"{shown.detail} {shown.advice}".strip()
        raise FactorNotProven(Trouble(shown.title, detail, "", "code", shown.status)) from error
    return replace(seen_again(viewer), proof=proof)


def credential_of(answer: str) -> Mapping[str, object]:
    """What the browser's passkey answered, as the script put it into the form.

    Raises:
        Invalid: it is no JSON object.
    """
    try:
        found = json.loads(answer[:_MOST_ANSWER])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid("The passkey's answer could not be read.", field="/passkey", advice="Try again.")
    return found
