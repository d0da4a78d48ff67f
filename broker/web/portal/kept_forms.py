"""Forms that came when their session had ended: shown back to whoever sent them, to be sent again after sign-in.

Nothing is stored: the fields travel in the page. A form is shown back only if the browser says that a page of ours
sent it (`Sec-Fetch-Site: same-origin`), so no other site can have one prepared here. It does nothing until somebody
signed in has looked at it and pressed the button, which carries the CSRF token of their session. Secrets and second
factors are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from broker.base.errors import Forbidden, GuestkeyError, Invalid, NotSignedIn
from broker.base.private_keys import is_private
from broker.web.portal.pages import render
from broker.web.portal.viewer import anybody, fields, sign_in_path

# What belongs to one session only, or is about signing in itself.
_NEVER = ("/sign-out", "/sign-in", "/oauth/", "/security/", "/confirm")
_LEFT_OUT = frozenset({"csrf_token", "code", "passkey", "recovery_code", "client_secret", "target"})
_MOST_SHOWN = 12
_LONGEST = 20_000


async def offer(request: Request, error: GuestkeyError) -> Response | None:
    """The page that shows a form back; None where it was no form of ours, or failed for another reason."""
    signed_out = isinstance(error, NotSignedIn) and error.code == NotSignedIn.code
    out_of_date = isinstance(error, Forbidden) and error.code == "csrf"
    if not (signed_out or out_of_date) or not _from_a_page_of_ours(request):
        return None
    try:
        sent = await fields(request)
    except Invalid:
        return None
    # A private key pasted in error has been sent once too often already.
    kept = {name: value for name, value in sent.items() if name not in _LEFT_OUT and not is_private(value)}
    if not any(value.strip() for value in kept.values()) or sum(map(len, kept.values())) > _LONGEST:
        return None
    return await run_in_threadpool(_page, request, kept, signed_out)


def _from_a_page_of_ours(request: Request) -> bool:
    path = request.url.path
    # As the browser says it, not as assumed where it says nothing: whoever is asked to press must not have been led.
    same = request.headers.get("sec-fetch-site") == "same-origin"
    return request.method == "POST" and same and not path.startswith(_NEVER)


def _page(request: Request, kept: Mapping[str, str], signed_out: bool) -> Response:
    seen = {name: value for name, value in kept.items() if value.strip()}
    return render(
        "kept_form.html",
        status=401 if signed_out else 403,
        viewer=None if signed_out else anybody(request),
        action=request.url.path,
        kept=kept,
        shown=list(seen.items())[:_MOST_SHOWN],
        more=max(0, len(seen) - _MOST_SHOWN),
        sign_in=sign_in_path(request),
    )
