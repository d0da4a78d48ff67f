"""The second factor at the command line: a code typed here, or a passkey proven in the browser for this very token.

Asked for in the terminal that needs it, so that what was interrupted goes on.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from broker.kinds.client import moment
from guestkey.cli import browsers
from guestkey.cli.api import Api, Json, segment
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import Output
from guestkey.cli.words import duration, safe

ATTEMPTS = 3
PROMPT = "Code from your authenticator: "
PROMPT_OR_PASSKEY = "Code from your authenticator, or just Enter for your passkey in the browser: "
_PAUSE = 1.0


def ask(api: Api, out: Output, fault: Fault) -> None:
    """Ask for a second factor because `fault` wants one, and prove it.

    Raises:
        Fault: no factor is enrolled, or none was proven.
    """
    if fault.problem.get("enrolled") is False:
        raise not_enrolled(api)
    max_age = fault.problem.get("max_age")
    why = (
        f"this needs one confirmed in the last {duration(max_age)}"
        if isinstance(max_age, int) and max_age
        else "it is needed now"
    )
    out.say(f"Confirm your second factor: {why}.")
    prove(api, out)


def prove(api: Api, out: Output) -> Json:
    """Prove a factor by the means the person has; returns who is confirmed.

    Raises:
        Fault: the last refusal, after three attempts or when asking again is useless.
    """
    held = api.get("/factors")
    if not held.get("totp"):
        return in_browser(api, out) if held.get("passkeys") else _type_code(api, out, PROMPT)
    return _type_code(api, out, PROMPT_OR_PASSKEY if held.get("passkeys") else PROMPT)


def send(api: Api, code: str) -> Json:
    """Prove a code that is there already."""
    return api.post("/confirm/totp", {"code": code})


def in_browser(api: Api, out: Output, *, open_browser: bool = True) -> Json:
    """Let the person prove a passkey in the browser, for this token; returns who is confirmed.

    Raises:
        Fault: it was not confirmed in time, or the person said it was not them.
    """
    before = api.get("/me").get("factor_at")
    waiting = api.post("/confirm/browser")
    # Made here and not taken from the answer: nothing but this installation is ever opened.
    address = f"{api.url}/confirm/command-line/{segment(str(waiting.get('id')))}"
    out.say(
        f"Confirm your second factor in the browser:\n\n  {address}\n\nIt shows this code: {safe(waiting.get('code'))}"
    )
    if open_browser:
        browsers.try_open(address)
    _wait(api, waiting)
    me = api.get("/me")
    if not me.get("factor_at") or me["factor_at"] == before:
        raise Fault(Code.FACTOR, "It was not confirmed in the browser in time.", next_step="guestkey confirm")
    return me


def not_enrolled(api: Api) -> Fault:
    """Nothing to confirm with: enrolling needs the portal."""
    return Fault(Code.FACTOR, "You have no second factor yet.", next_step=f"Add one in the portal: {api.url}/security")


def _type_code(api: Api, out: Output, prompt: str) -> Json:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            code = out.ask(prompt)
            if not code and prompt == PROMPT_OR_PASSKEY:
                return in_browser(api, out)
            return send(api, code)
        except Fault as fault:
            if attempt == ATTEMPTS or fault.problem.get("code") != "wrong_code":
                raise
            out.say(f"{safe(fault.why or fault.what)} Wait for the next code, then enter it.")
    raise AssertionError("the loop returns or raises")


def _wait(api: Api, waiting: Json) -> None:
    """Until it was answered, or its time is over by the server's clock."""
    ends = moment(str(waiting.get("expires_at")))
    left = (ends - datetime.now(UTC)).total_seconds() if ends else 0.0
    # Clocks differ; the server says when it is over, and this bounds how long it is believed.
    end = time.monotonic() + min(max(left, 0.0) + 60.0, 300.0)
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        try:
            api.get(f"/confirm/browser/{segment(str(waiting.get('id')))}")
        except Fault as fault:
            if fault.code is Code.NOT_FOUND:
                return
            if fault.code is Code.SIGN_IN:
                raise Fault(
                    Code.SIGN_IN, "This command line was signed out in the browser.", next_step="guestkey login"
                ) from fault
            raise
