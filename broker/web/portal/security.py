"""Security: the person's own second factors, recovery and sessions. What proves a factor is `broker.identity`."""

from __future__ import annotations

import json

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response

from broker.base import words
from broker.base.database import now as clock
from broker.identity import factor_changes, factors, passkeys, recovery_codes, sessions, totp
from broker.identity.http import renew_session
from broker.web.portal.acting import Setback, act, credential_of, go, with_this_form
from broker.web.portal.pages import render
from broker.web.portal.signing_out import ask_about_allowed
from broker.web.portal.signing_out import end_session as end_session_of
from broker.web.portal.viewer import MemberNow, Sent, Viewer, seen_again

router = APIRouter()


@router.get("/security")
def security(viewer: MemberNow) -> HTMLResponse:
    """Passkeys, authenticator app, recovery codes and sessions."""
    return _page(Setback(viewer), "")


@router.post("/security/passkey")
def begin_passkey(viewer: MemberNow, sent: Sent) -> Response:
    """The page on which the browser makes a passkey."""

    def do(viewer: Viewer) -> Response:
        options = passkeys.registration_options(
            viewer.parts, viewer.caller, viewer.found.enrolment_allowed_until, viewer.proof
        )
        return render("passkey.html", viewer=viewer, options=json.dumps(options))

    return act(viewer, sent, do, lambda setback: _page(setback, "passkey"), needs=_enrolment)


@router.post("/security/passkeys")
def add_passkey(viewer: MemberNow, sent: Sent) -> Response:
    """Keep the passkey the browser made."""

    def do(viewer: Viewer) -> Response:
        name = words.name(sent.get("name", "").strip() or "Passkey", "/name", longest=80)
        credential = credential_of(sent.get("passkey", ""))
        until = viewer.found.enrolment_allowed_until
        return _enrolled(viewer, passkeys.register(viewer.parts, viewer.caller, until, credential, name))

    return act(viewer, sent, do, lambda setback: _page(setback, "passkey"))


@router.post("/security/passkeys/{passkey_id}/remove")
def remove_passkey(passkey_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """Remove a passkey; the last factor stays."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            factor_changes.remove_passkey(tx, viewer.caller, passkey_id, viewer.proof, clock(tx))
        return go("/security")

    return act(viewer, sent, do, lambda setback: _page(setback, f"remove {passkey_id}"), needs=with_this_form)


@router.post("/security/app")
def begin_app(viewer: MemberNow, sent: Sent) -> Response:
    """The page with the new secret for an authenticator app, as image and as text."""

    def do(viewer: Viewer) -> Response:
        made = totp.begin(viewer.parts, viewer.caller, viewer.found.enrolment_allowed_until, viewer.proof)
        return render("app.html", viewer=viewer, made=made, code="")

    return act(viewer, sent, do, lambda setback: _page(setback, "app"), needs=_enrolment)


@router.post("/security/app/confirm")
def confirm_app(viewer: MemberNow, sent: Sent) -> Response:
    """Put the new secret in force with a first code."""

    def do(viewer: Viewer) -> Response:
        until = viewer.found.enrolment_allowed_until
        return _enrolled(viewer, totp.confirm_enrolment(viewer.parts, viewer.caller, until, sent.get("code", "")))

    def again(setback: Setback) -> Response:
        # Without the secret: it was scanned already, and a new one would make that worthless.
        return render(
            "app.html",
            viewer=viewer,
            made=None,
            code=sent.get("code", "")[:20],
            trouble=setback.trouble,
            status=setback.status,
        )

    return act(viewer, sent, do, again)


@router.post("/security/app/remove")
def remove_app(viewer: MemberNow, sent: Sent) -> Response:
    """Remove the authenticator app; the last factor stays."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            factor_changes.remove_totp(tx, viewer.caller, viewer.proof, clock(tx))
        return go("/security")

    return act(viewer, sent, do, lambda setback: _page(setback, "remove app"), needs=with_this_form)


@router.post("/security/recover")
def recover(viewer: MemberNow, sent: Sent) -> Response:
    """Use up a recovery code: this session may then add a new factor."""

    def do(viewer: Viewer) -> Response:
        recovery_codes.use(viewer.parts, viewer.caller, sent.get("recovery_code", ""))
        answer = go("/security")
        renew_session(viewer.request, answer)
        return answer

    return act(viewer, sent, do, lambda setback: _page(setback, "recover"))


@router.post("/security/recovery-codes")
def replace_recovery_codes(viewer: MemberNow, sent: Sent) -> Response:
    """Ten new recovery codes, shown once; the old ones stop working."""

    def do(viewer: Viewer) -> Response:
        with viewer.parts.database.transaction() as tx:
            codes = recovery_codes.replace(tx, viewer.caller, viewer.proof, clock(tx))
        return render("recovery_codes.html", viewer=viewer, codes=codes)

    return act(viewer, sent, do, lambda setback: _page(setback, "codes"), needs=with_this_form)


@router.get("/live/here")
def here(viewer: MemberNow) -> Response:
    """Somebody is still here: their session does not idle out."""
    return Response(status_code=204)


@router.post("/security/sessions/{holder_id}/end")
def end_session(holder_id: str, viewer: MemberNow, sent: Sent) -> Response:
    """End one of one's sessions or command lines."""

    def do(viewer: Viewer) -> Response:
        if (asked := ask_about_allowed(viewer, holder_id, f"/security/sessions/{holder_id}/end", sent)) is not None:
            return asked
        end_session_of(viewer, holder_id, sent)
        return go("/security")

    return act(viewer, sent, do, lambda setback: _page(setback, ""))


def _enrolment(viewer: Viewer) -> int | None:
    """What this session lacks to begin adding a factor: an older one with this very form, or an opened window."""
    until = viewer.found.enrolment_allowed_until
    if (until is not None and until > viewer.now) or not viewer.caller.factor_enrolled:
        return None
    return with_this_form(viewer)


def _enrolled(viewer: Viewer, codes: list[str]) -> Response:
    viewer = seen_again(viewer)
    answer = render("recovery_codes.html", viewer=viewer, codes=codes) if codes else go("/security")
    renew_session(viewer.request, answer)
    return answer


def _page(setback: Setback, asked_for: str) -> HTMLResponse:
    viewer = setback.viewer
    until = viewer.found.enrolment_allowed_until
    with viewer.parts.database.transaction() as tx:
        held = factors.listed(tx, viewer.caller.id)
        signed_in = sessions.list_sign_ins(tx, viewer.caller, viewer.now)
    return render(
        "security.html",
        viewer=viewer,
        status=setback.status if setback.trouble or setback.panel else 200,
        trouble=setback.trouble,
        panel=setback.panel,
        asked_for=asked_for,
        held=held,
        sessions=signed_in,
        window=until if until and until > viewer.now else None,
        may_begin=viewer.caller.factor_enrolled or bool(until and until > viewer.now),
    )
