"""Where people sign in: the sources there are, proposing one, and trusting or closing one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from broker.base.errors import Invalid
from broker.identity import faults, sources
from broker.identity.permissions import require_admin
from broker.identity.sources import SOURCES
from broker.registry import source_proposals, vendors
from broker.web.api.common import lifetime_of
from broker.web.api.sources import MfaBody, SourceBody
from broker.web.portal.forms import Context, PortalRequest, act, form, page

Body = TypeVar("Body", bound=BaseModel)


@page("/sources", template="registry/sources.html")
def all_sources(req: PortalRequest) -> Context:
    """Sign-in sources, newest first, with the link their people open."""
    window = req.window()
    found = SOURCES.page(req.tx, req.caller, window)
    return {
        "page": found,
        "cursor": window.cursor,
        "failures": faults.last_failures(req.tx, [item.id for item in found.items]),
        "links": {item.id: sources.sign_in_link(req.parts.settings, item.id) for item in found.items},
        "checked": None,
    }


@page("/sources/new", template="registry/new_source.html")
def new_source(req: PortalRequest) -> Context:
    """The form that proposes a source."""
    require_admin(req.caller)
    # A secret is never sent back into a page.
    filled = {name: value for name, value in req.prefilled("vendor").items() if name != "client_secret"}
    return {"vendors": [("", "The organisation"), *vendors.choices(req.tx)], "filled": filled}


@form("/sources/new", rerender=new_source)
def add_source(req: PortalRequest) -> str:
    """Propose a source; a second admin binds it."""
    said = {name: req.sent[name] for name in ("name", "issuer", "client_id") if name in req.sent}
    optional = {name: req.sent[name] for name in ("client_secret", "vendor") if req.field(name)}
    lists = {
        "required_claims": _claims(req.field("required_claims")),
        "other_audiences": req.field("other_audiences").split(),
    }
    body = _body(SourceBody, {**said, **optional, **lists})
    return f"/proposals/{source_proposals.propose_source(req.parts, req.caller, body.new()).id}"


@form("/sources/{source_id}/check", rerender=all_sources, needs=None)
def try_source(req: PortalRequest, source_id: str) -> Response:
    """Try a source; the page says what was found."""
    checked = source_proposals.check_source(req.parts, req.caller, source_id)
    return all_sources.answer(req.viewer, req.sent, checked=(source_id, checked))


@form("/sources/{source_id}/trust-mfa", rerender=all_sources)
def trust_mfa(req: PortalRequest, source_id: str) -> str:
    """Propose to count a source's own second factor."""
    values, lifetime = _body(MfaBody, {"values": req.field("values").split()}).values, lifetime_of(req.parts)
    made = source_proposals.propose_trust_mfa(req.tx, req.caller, source_id, values, req.now, lifetime=lifetime)
    return f"/proposals/{made.id}"


act("/sources/{source_id}/disable", sources.disable, rerender=all_sources, then="/sources")


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
