"""Where people sign in: the sources there are, proposing one, and trusting or closing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from broker.base.database import now as clock
from broker.base.errors import Forbidden, Invalid
from broker.base.paging import Window
from broker.identity import sources
from broker.identity.sources import SOURCES
from broker.registry import vendors
from broker.web.api.sources import (
    Checked,
    MfaBody,
    SourceBody,
    check_source,
    propose_source,
    propose_trust_mfa,
    sources_shown,
)
from broker.web.api.verbs import At
from broker.web.portal.acting import Setback, act, fresh, go
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Sent, Viewer

router = APIRouter()
_MOST_VENDORS = 500
Body = TypeVar("Body", bound=BaseModel)


@router.get("/sources")
def all_sources(viewer: MemberNow, cursor: str | None = None) -> HTMLResponse:
    """Sign-in sources, newest first, with the link their people open."""
    return _sources_page(Setback(viewer), cursor, {})


@router.get("/sources/new")
def new_source(viewer: MemberNow, vendor: str = "") -> HTMLResponse:
    """The form that proposes a source."""
    return _new_source(Setback(viewer), {"vendor": vendor})


@router.post("/sources/new")
def add_source(viewer: MemberNow, sent: Sent) -> Response:
    """Propose a source; a second admin binds it."""

    def do(viewer: Viewer) -> Response:
        said = {name: sent[name] for name in ("name", "issuer", "client_id") if name in sent}
        optional = {name: sent[name] for name in ("client_secret", "vendor") if sent.get(name)}
        lists = {
            "required_claims": _claims(sent.get("required_claims", "")),
            "other_audiences": sent.get("other_audiences", "").split(),
        }
        body = _body(SourceBody, {**said, **optional, **lists})
        return go(f"/proposals/{propose_source(body, viewer.caller, viewer.parts).id}")

    return act(viewer, sent, do, lambda back: _new_source(back, sent), needs=fresh)


@router.post("/sources/{source_id}/check")
def try_source(source_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Try a source; the page says what was found."""

    def do(viewer: Viewer) -> Response:
        found = check_source(source_id, viewer.caller, viewer.parts)
        return _sources_page(Setback(viewer), sent.get("cursor") or None, {}, found)

    filled = {**sent, "source": source_id, "what": "check"}
    return act(viewer, sent, do, lambda back: _sources_page(back, sent.get("cursor") or None, filled))


@router.post("/sources/{source_id}/{what}")
def change_source(source_id: str, what: str, viewer: MemberNow, sent: Sent) -> Response:
    """Propose to count a source's own second factor, or close the source at once."""

    def do(viewer: Viewer) -> Response:
        if what == "trust-mfa":
            body = _body(MfaBody, {"values": sent.get("values", "").split()})
            with viewer.parts.database.transaction() as tx:
                waiting = propose_trust_mfa(At(viewer.parts, viewer.caller, tx), source_id, body)
            return go(f"/proposals/{waiting.id}")
        if what != "disable":
            raise Invalid("There is no such action here.")
        with viewer.parts.database.transaction() as tx:
            sources.disable(tx, viewer.caller, source_id, clock(tx))
        return go("/sources")

    filled = {**sent, "source": source_id, "what": what}
    return act(viewer, sent, do, lambda back: _sources_page(back, sent.get("cursor") or None, filled), needs=fresh)


def _sources_page(
    setback: Setback, cursor: str | None, filled: Mapping[str, str], checked: Checked | None = None
) -> HTMLResponse:
    viewer = setback.viewer
    with viewer.parts.database.transaction() as tx:
        found = SOURCES.page(tx, viewer.caller, Window(cursor))
        shown = sources_shown(At(viewer.parts, viewer.caller, tx), found.items)
    return _page(
        "registry/sources.html", setback, page=found, sources=shown, cursor=cursor, filled=filled, checked=checked
    )


def _new_source(setback: Setback, filled: Mapping[str, str]) -> HTMLResponse:
    viewer = setback.viewer
    if not viewer.caller.is_admin:
        raise Forbidden("Only an admin can propose this.", advice="Ask an admin of the organisation.")
    with viewer.parts.database.transaction() as tx:
        found = vendors.VENDORS.page(tx, viewer.caller, Window(limit=_MOST_VENDORS)).items
    choices = [("", "The organisation"), *((item.id, item.name) for item in found)]
    # A secret is never sent back into a page.
    shown = {name: value for name, value in filled.items() if name != "client_secret"}
    return _page("registry/new_source.html", setback, filled=shown, vendors=choices)


def _page(template: str, setback: Setback, **shown: object) -> HTMLResponse:
    status = setback.status if setback.trouble or setback.panel else 200
    return render(template, viewer=setback.viewer, status=status, trouble=setback.trouble, panel=setback.panel, **shown)


def _claims(text: str) -> dict[str, str]:
    """Required claims as typed, `name=value` a line.

    Raises:
        Invalid: a line is no such pair, or a name comes twice.
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, parted, value = (part.strip() for part in line.partition("="))
        if not (name and parted and value) or name in found:
            raise Invalid(
                "Enter one claim per line as name=value, and each claim only once.",
                field="/required_claims",
                advice="For example hd=acme.example.",
            )
        found[name] = value
    return found


def _body(shape: type[Body], said: Mapping[str, Any]) -> Body:
    """What the API takes, from a form's fields.

    Raises:
        Invalid: naming the first field that does not fit.
    """
    try:
        return shape.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Invalid(f"{first['msg']}.", field=f"/{first['loc'][0] if first['loc'] else ''}") from None
