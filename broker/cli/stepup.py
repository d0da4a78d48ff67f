"""The second factor at the prompt: asked for in the terminal that needs it, so that what was interrupted goes on."""

from __future__ import annotations

from broker.cli.api import Api, Json
from broker.cli.faults import Code, Fault
from broker.cli.output import Output
from broker.cli.words import duration, safe

ATTEMPTS = 3


def ask(api: Api, out: Output, fault: Fault) -> None:
    """Ask for a code because `fault` wants one, and prove it.

    Raises:
        Fault: no factor is enrolled, or every code was refused.
    """
    if fault.problem.get("enrolled") is False:
        raise not_enrolled(api)
    max_age = fault.problem.get("max_age")
    why = (
        f"this asks for one no older than {duration(max_age)}" if isinstance(max_age, int) and max_age else "it is due"
    )
    out.say(f"Confirm it is you: {why}.")
    prove(api, out)


def prove(api: Api, out: Output) -> Json:
    """Prompt for a code until it is right; returns who is confirmed.

    Raises:
        Fault: the last refusal, after three attempts or when asking again is useless.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return send(api, out.ask("Code from your authenticator: "))
        except Fault as fault:
            if attempt == ATTEMPTS or fault.problem.get("code") != "wrong_code":
                raise
            out.say(f"{safe(fault.why or fault.what)} Wait for the next code, then type it.")
    raise AssertionError("the loop returns or raises")


def send(api: Api, code: str) -> Json:
    """Prove a code that is there already."""
    return api.post("/confirm/totp", {"code": code})


def not_enrolled(api: Api) -> Fault:
    """Nothing to confirm with: enrolling needs the portal."""
    return Fault(Code.FACTOR, "You have no second factor yet.", next_step=f"Add one in the portal: {api.url}/security")
