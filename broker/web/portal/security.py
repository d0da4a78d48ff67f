"""Security: the person's own second factors, recovery and sessions. What proves a factor is `broker.identity`.

Of a session that ends, what it has allowed is named, and ended with it if the person says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from broker.base import words
from broker.base.database import clock
from broker.identity import factors, passkeys, sessions, totp
from broker.identity.http import renew_session
from broker.web.portal.forms import (
    Context,
    PortalPage,
    PortalRequest,
    credential_of,
    form,
    go,
    page,
    router,
    with_this_form,
)
from broker.web.portal.pages import render
from broker.web.portal.viewer import MemberNow, Viewer, seen_again

# What the buttons of the page send: whether the command lines end, too.
CHOICE = "command_lines"
END, KEEP = "end", "keep"


def ask_about_allowed(viewer: Viewer, session_id: str, action: str, sent: Mapping[str, str]) -> Response | None:
    """The page that asks about the command lines a session has signed in; None if there are none, or it was answered.

    Args:
        action: where its form goes: the same address that asked.
    """
    if sent.get(CHOICE) in (END, KEEP):
        return None
    with viewer.parts.database.transaction() as tx:
        allowed = sessions.allowed_by(tx, viewer.caller, session_id, clock(tx))
    if not allowed:
        return None
    here = session_id == viewer.caller.holder_id
    return render("sign_in/sign_out.html", viewer=viewer, allowed=allowed, action=action, here=here, choice=CHOICE)


def end_session(viewer: Viewer, session_id: str, sent: Mapping[str, str]) -> None:
    """End a session or command line, and what it has allowed if the form says so.

    Raises:
        NotFound: it is not the person's, or has ended.
    """
    end = sessions.end_with_allowed if sent.get(CHOICE) == END else sessions.end
    with viewer.parts.database.transaction() as tx:
        end(tx, viewer.caller, session_id, clock(tx))


@page("/security", template="security.html")
def security(req: PortalRequest) -> Context:
    """Passkeys, authenticator app, recovery codes and sessions."""
    until = req.viewer.found.enrolment_allowed_until
    window = until if until and until > req.viewer.now else None
    return {
        "held": factors.listed(req.tx, req.caller.id),
        "sessions": sessions.list_sign_ins(req.tx, req.caller, req.viewer.now),
        "window": window,
        "may_begin": req.caller.factor_enrolled or window is not None,
    }


# Another code is asked for without the secret: it was scanned already, and a new one would make that worthless.
_ANOTHER_CODE = PortalPage("app.html", lambda req: {"made": None, "code": req.field("code")[:20]})


def _enrolment(viewer: Viewer, sent: Mapping[str, str]) -> int | None:
    """What this session lacks to begin adding a factor: an older one with this very form, or an opened window."""
    until = viewer.found.enrolment_allowed_until
    if (until is not None and until > viewer.now) or not viewer.caller.factor_enrolled:
        return None
    return with_this_form(viewer, sent)


@form("/security/passkey", rerender=security, needs=_enrolment)
def begin_passkey(req: PortalRequest) -> Response:
    """The page on which the browser makes a passkey."""
    until = req.viewer.found.enrolment_allowed_until
    options = passkeys.registration_options(req.parts, req.caller, until, req.viewer.proof)
    return render("passkey.html", viewer=req.viewer, options=json.dumps(options))


@form("/security/passkeys", rerender=security, needs=None)
def add_passkey(req: PortalRequest) -> Response:
    """Keep the passkey the browser made."""
    name = words.name(req.field("name").strip() or "Passkey", "/name", longest=80)
    credential = credential_of(req.field("passkey"))
    until = req.viewer.found.enrolment_allowed_until
    return _enrolled(req.viewer, passkeys.register(req.parts, req.caller, until, credential, name))


@form("/security/passkeys/{passkey_id}/remove", rerender=security, needs=with_this_form)
def remove_passkey(req: PortalRequest, passkey_id: str) -> str:
    """Remove a passkey; the last factor stays."""
    factors.remove_passkey(req.tx, req.caller, passkey_id, req.viewer.proof, req.now)
    return "/security"


@form("/security/app", rerender=security, needs=_enrolment)
def begin_app(req: PortalRequest) -> Response:
    """The page with the new secret for an authenticator app, as image and as text."""
    made = totp.begin(req.parts, req.caller, req.viewer.found.enrolment_allowed_until, req.viewer.proof)
    return render("app.html", viewer=req.viewer, made=made, code="")


@form("/security/app/confirm", rerender=_ANOTHER_CODE, needs=None)
def confirm_app(req: PortalRequest) -> Response:
    """Put the new secret in force with a first code."""
    until = req.viewer.found.enrolment_allowed_until
    return _enrolled(req.viewer, totp.confirm_enrolment(req.parts, req.caller, until, req.field("code")))


@form("/security/app/remove", rerender=security, needs=with_this_form)
def remove_app(req: PortalRequest) -> str:
    """Remove the authenticator app; the last factor stays."""
    factors.remove_totp(req.tx, req.caller, req.viewer.proof, req.now)
    return "/security"


@form("/security/recover", rerender=security, needs=None)
def recover(req: PortalRequest) -> Response:
    """Use up a recovery code: this session may then add a new factor."""
    factors.use_recovery_code(req.parts, req.caller, req.field("recovery_code"))
    answer = go("/security")
    renew_session(req.viewer.request, answer)
    return answer


@form("/security/recovery-codes", rerender=security, needs=with_this_form)
def replace_recovery_codes(req: PortalRequest) -> Response:
    """Ten new recovery codes, shown once; the old ones stop working."""
    codes = factors.replace_recovery_codes(req.tx, req.caller, req.viewer.proof, req.now)
    return render("recovery_codes.html", viewer=req.viewer, codes=codes)


@router.get("/live/here")
def here(viewer: MemberNow) -> Response:
    """Somebody is still here: their session does not idle out."""
    return Response(status_code=204)


@form("/security/sessions/{holder_id}/end", rerender=security, needs=None)
def end_one_session(req: PortalRequest, holder_id: str) -> str | Response:
    """End one of one's sessions or command lines."""
    asked = ask_about_allowed(req.viewer, holder_id, f"/security/sessions/{holder_id}/end", req.sent)
    if asked is not None:
        return asked
    end_session(req.viewer, holder_id, req.sent)
    return "/security"


def _enrolled(viewer: Viewer, codes: list[str]) -> Response:
    viewer = seen_again(viewer)
    answer = render("recovery_codes.html", viewer=viewer, codes=codes) if codes else go("/security")
    renew_session(viewer.request, answer)
    return answer
