"""Pages and forms: what a page shows and what a form does, each said in one short function.

A page's function gathers what its template shows. A form's function does what was asked, in one transaction, and says
where to go then. If it was not done, the form's page is shown again with every field as it was sent, and the error
beside its field or the question for a second factor in its form: the code or the passkey's answer comes with the
fields it guards.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from broker.base.database import Transaction, clock
from broker.base.errors import BackendDown, Conflict, FactorNeeded, Forbidden, GuestkeyError, Invalid, NotFound, TooMany
from broker.base.paging import DEFAULT_LIMIT, Page, Window
from broker.identity import factors, passkeys, totp
from broker.identity.caller import Caller
from broker.identity.http import renew_session
from broker.identity.nouns import Noun, Record
from broker.runtime.parts import Parts
from broker.web.api.common import FRESH_SECONDS
from broker.web.portal.pages import duration, render
from broker.web.portal.viewer import MemberNow, Sent, Viewer, seen_again
from broker.web.problems import status_of

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
            if not (sent.get("passkey") or sent.get("code", "").strip()):
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


@dataclass(eq=False)
class FactorNotProven(Exception):
    """A code or a passkey's answer that came with a form did not count."""

    trouble: Trouble


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


# Every page and form of the portal; `broker.web.portal` puts them into an order that does not depend on the files'.
router = APIRouter(include_in_schema=False)
Context = dict[str, Any]
_NOTHING: Mapping[str, str] = {}


class PortalRequest(ExitStack[bool | None]):
    """What a page or a form works with: who asks, one transaction, and what was sent.

    `sent`: the form's fields; empty where a page is opened. `failure`: why the page is shown again.
    """

    def __init__(self, viewer: Viewer, sent: Mapping[str, str] = _NOTHING, failure: FormFailure | None = None) -> None:
        self.viewer = viewer
        self.sent = sent
        self.failure = failure
        super().__init__()

    @cached_property
    def tx(self) -> Transaction:
        """The transaction of the whole page or form, begun when first asked for and committed at its end."""
        return self.enter_context(self.parts.database.transaction())

    @cached_property
    def now(self) -> datetime:
        """PostgreSQL's clock in that transaction."""
        return clock(self.tx)

    @property
    def caller(self) -> Caller:
        """The person, as this session proved them."""
        return self.viewer.caller

    @property
    def parts(self) -> Parts:
        """What this replica works with."""
        return self.viewer.parts

    def field(self, name: str) -> str:
        """A field of the form; empty if it was not sent."""
        return self.sent.get(name, "")

    def ticked(self, prefix: str) -> list[str]:
        """What was ticked of boxes that are called alike."""
        return [name.removeprefix(prefix) for name in self.sent if name.startswith(prefix)]

    def asked(self, name: str) -> str:
        """What the page's address asks for; empty if it does not."""
        return self.viewer.request.query_params.get(name, "").strip()

    def prefilled(self, *names: str) -> Mapping[str, str]:
        """The form as it was sent; where its page is just opened, these fields as the address gives them."""
        return self.sent or {name: self.asked(name)[:64] for name in names}

    def window(self, limit: int = DEFAULT_LIMIT, *, oldest_first: bool = False) -> Window:
        """Which part of a list is asked for."""
        return Window(self.sent.get("cursor") or self.viewer.request.query_params.get("cursor"), limit, oldest_first)

    def listed(
        self, noun: Noun[Record], window: Window | None = None, **narrowed: Any
    ) -> tuple[Page[Record], Trouble | None]:
        """A page of a noun's list; an empty one, and what is wrong, where a filter in the address names nothing."""
        try:
            return noun.page(self.tx, self.caller, window or self.window(), **narrowed), None
        except Invalid as error:
            trouble = trouble_of(error)
            return Page(items=[], next_cursor=None), replace(trouble, field=trouble.field.rpartition("/")[2])


class PortalPage:
    """A template, and the function that gathers what it shows, or leads elsewhere."""

    def __init__(self, template: str, gather: Callable[..., Context | Response]) -> None:
        self._template = template
        self.gather = gather
        self._named = list(inspect.signature(gather).parameters)[1:]

    def answer(
        self, viewer: Viewer, sent: Mapping[str, str] = _NOTHING, failure: FormFailure | None = None, **more: Any
    ) -> Response:
        """Render the page.

        Args:
            failure: why a form of this page was not done; its fields are `sent`.
            more: what else the template shows, put before what the page itself gathers.
        """
        path = viewer.request.path_params
        with PortalRequest(viewer, sent, failure) as req:
            shown = self.gather(req, **{name: path[name] for name in self._named})
        if isinstance(shown, Response):
            return shown
        context = _of_failure(viewer, failure) | {"filled": sent} | shown | more
        if context["panel"] is None and (seconds := context.get("ahead")) is not None:
            # Asked for with the page itself, after its transaction: a passkey's question has one of its own.
            context["panel"] = replace(asked(viewer, seconds), interrupts=False)
        if context["panel"] and context.get("why"):
            context["panel"] = replace(context["panel"], why=context["why"])
        if failure is None and context["trouble"]:
            context.setdefault("status", context["trouble"].status)
        return render(self._template, viewer=viewer, **context)


def _of_failure(viewer: Viewer, failure: FormFailure | None) -> Context:
    if failure is None:
        return {"trouble": None, "panel": None, "sent_to": ""}
    return {
        "trouble": failure.trouble,
        "panel": failure.panel,
        "status": failure.status,
        # Of several forms on a page, the one that was sent.
        "sent_to": viewer.request.url.path,
    }


def page(
    *paths: str, template: str, live: tuple[str, str] | None = None
) -> Callable[[Callable[..., Context | Response]], PortalPage]:
    """Declare a page: what it shows, given a `PortalRequest` and the parts of its path by name.

    What it shows may hold `ahead`, how fresh a second factor its form asks for at once, and `why`, the words for that.

    Args:
        live: the address and the template of the part of it that the script keeps current.
    """

    def declare(gather: Callable[..., Context | Response]) -> PortalPage:
        made = PortalPage(template, gather)
        for path in paths:
            _serve(path, made, gather.__name__)
        if live:
            _serve(live[0], PortalPage(live[1], gather), f"live_{gather.__name__}")
        return made

    return declare


def _serve(path: str, made: PortalPage, name: str) -> None:
    def show(viewer: MemberNow) -> Response:
        return made.answer(viewer)

    router.get(path, name=name)(show)


def form(
    *paths: str, rerender: PortalPage, needs: Needs | None = fresh
) -> Callable[[Callable[..., str | Response]], Callable[..., str | Response]]:
    """Declare a form: what it does, given a `PortalRequest` and the parts of its path by name.

    It answers with the address to go to, or with a page that is shown once.

    Args:
        rerender: the page to show again if it was not done.
        needs: how fresh a second factor it lacks; None if it takes none.
    """

    def declare(do: Callable[..., str | Response]) -> Callable[..., str | Response]:
        def endpoint(viewer: MemberNow, sent: Sent) -> Response:
            def done(viewer: Viewer) -> Response:
                with PortalRequest(viewer, sent) as req:
                    answer = do(req, **viewer.request.path_params)
                return go(answer) if isinstance(answer, str) else answer

            return submit(
                viewer, sent, done, lambda failure: rerender.answer(failure.viewer, sent, failure), needs=needs
            )

        for path in paths:
            router.post(path, name=do.__name__)(endpoint)
        return do

    return declare


def act(
    path: str,
    do: Callable[..., object],
    *fields: str,
    rerender: PortalPage,
    needs: Needs | None = fresh,
    then: str | None = None,
) -> None:
    """Declare a form that hands its caller, the parts of its path, these fields and the time to a room's function.

    Args:
        then: where it leads; left out, to the address above its own.
    """

    def hand_on(req: PortalRequest, **named: str) -> str:
        do(req.tx, req.caller, *named.values(), *map(req.field, fields), req.now)
        return (path.rpartition("/")[0] if then is None else then).format(**named)

    hand_on.__name__ = path
    form(path, rerender=rerender, needs=needs)(hand_on)
