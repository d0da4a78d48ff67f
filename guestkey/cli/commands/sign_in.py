"""`login`, `logout`, `whoami`, `status`, `confirm`, `doctor`: who is at this terminal, and what keeps them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from guestkey.cli import config, doctor, loopback, status_summary, stepup, tokens
from guestkey.cli.api import Api, Json
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.faults import Code, Fault
from guestkey.cli.output import columns
from guestkey.cli.words import safe

ME = columns(
    "name, id, e-mail=email, vendor, roles, status, signed in=signed_in_at@, until=signed_in_until@, "
    "second factor=factor_at@, confirmed by=factor_method, factor enrolled=factor_enrolled, "
    "notices=notices.sentence"
)


def mount(app: typer.Typer, _groups: Groups) -> None:
    """Add these commands."""
    verb(app, "login")(login)
    verb(app, "logout")(logout)
    verb(app, "whoami")(whoami)
    verb(app, "status")(status)
    verb(app, "confirm")(confirm)
    verb(app, "doctor")(examine)


def login(
    cli: Cli,
    address: Annotated[str | None, typer.Argument(help="The installation, https://…; it is stored.")] = None,
    browser: Annotated[bool, typer.Option(help="Try to open a browser.")] = True,
    wait: Annotated[int, typer.Option(min=1, max=3600, help="Seconds to wait for the browser.")] = 300,
) -> None:
    """Sign in through the browser; works from another computer's browser too."""
    url = config.checked(address) if address else cli.url
    api = cli.api_as(None, url)
    token = loopback.sign_in(api, cli.out.say, open_browser=browser, paste=cli.can_ask, seconds=wait)
    where = _keep(cli, url, token)
    me = cli.api_as(token, url).get("/me")
    cli.out.say(f"Signed in to {url} as {me.get('name') or me.get('id')}. The token is in {where}.")
    cli.out.say("Next: guestkey dataset list" if me.get("factor_at") else "Next: guestkey confirm")
    if cli.as_json:
        cli.out.document(me)


def _keep(cli: Cli, url: str, token: str) -> str:
    """Keep a token in place of the one before, and end that; returns where it is kept.

    Raises:
        Fault, OSError: it cannot be kept; then it is ended, because nobody could.
    """
    before = _kept(url)
    try:
        config.remember(url)
        where = tokens.save(url, token)
    except (Fault, OSError, KeyboardInterrupt):
        _end(cli, url, token)
        raise
    if before not in (None, token):
        _end(cli, url, str(before))
    return where


def _kept(url: str) -> str | None:
    try:
        return tokens.kept(url).token
    except Fault:
        # What cannot be read cannot be ended either; saving tells if it matters.
        return None


def _end(cli: Cli, url: str, token: str) -> None:
    """End a token that nobody will use any more."""
    try:
        loopback.revoke(cli.api_as(token, url), token)
    except Fault as fault:
        if fault.code is not Code.SIGN_IN:
            cli.out.say(
                f"A command line's token could not be ended: {safe(fault.what)} See it in the portal: {url}/security"
            )


def logout(
    cli: Cli,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Also end your browser sessions and other command lines.")
    ] = False,
) -> None:
    """End this command line's token, here and on the server."""
    token = tokens.load(cli.url)
    if token is None:
        cli.out.done(f"You were not signed in to {cli.url}.")
        return
    try:
        if everywhere:
            _end_others(cli.api_as(token))
        loopback.revoke(cli.api_as(token), token)
    except Fault as fault:
        if fault.code is not Code.SIGN_IN:
            # What the server still honours must stay revocable from here.
            raise
    tokens.forget(cli.url)
    cli.out.done(f"Signed out of {cli.url}.")


def _end_others(api: Api) -> None:
    """End whatever else this person is signed in with; one that ended meanwhile is no fault."""
    for held in api.get("/sessions")["items"]:
        if held["current"]:
            continue
        try:
            api.delete(f"/sessions/{held['id']}")
        except Fault as fault:
            if fault.code is not Code.NOT_FOUND:
                raise


def whoami(cli: Cli) -> None:
    """Show who you are signed in as, until when, and how recent your second factor is."""
    cli.out.facts(ME, cli.api.get("/me"))


def status(cli: Cli) -> int | None:
    """Show whether the installation responds, your sign-in, your live leases, and what is waiting."""
    ready = _ready(cli)
    token = tokens.load(cli.url)
    facts = {"url": cli.url, "ready": ready["ready"], "missing": ready["missing"], "signed_in": token is not None}
    if token is not None:
        try:
            api = cli.api_as(token)
            facts["me"] = api.get("/me")
            facts.update(status_summary.status_summary(api, facts["me"]))
        except Fault as fault:
            if fault.code is Code.SIGN_IN:
                facts["signed_in"] = False
            elif ready["ready"]:
                raise
    cli.out.facts(status_summary.COLUMNS, facts)
    for line in (status_summary.remark(facts), f"Next: {said}" if (said := status_summary.next_command(facts)) else ""):
        if line:
            cli.out.remark(line)
    if not ready["ready"]:
        return Code.BACKEND
    return None if facts["signed_in"] else Code.SIGN_IN


def examine(cli: Cli) -> int:
    """Check the connection between this machine and the installation, and say how to fix problems.

    Exits as the first thing that does not work would: 0 all is well, 1 here, 4 not signed in, 8 the server.
    """
    findings = []
    for finding in doctor.examine(cli.wanted_url, lambda url, token: cli.api_as(token, url)):
        findings.append(finding)
        _tell(cli, finding)
    if cli.as_json:
        shown = ("check", "state", "said", "at", "mend")
        cli.out.document({"items": [{name: getattr(finding, name) for name in shown} for finding in findings]})
    return doctor.worst(findings)


def confirm(
    cli: Cli,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the code from standard input.")] = False,
    browser: Annotated[bool, typer.Option("--browser", help="With a passkey, in a browser on any computer.")] = False,
) -> None:
    """Confirm your second factor now: with a code of your authenticator app, or with a passkey in the browser."""
    api = cli.api
    api.confirm = None
    if stdin:
        me = stepup.send(api, sys.stdin.readline().strip())
    elif browser:
        me = stepup.in_browser(api, cli.out, open_browser=cli.can_ask)
    elif not cli.can_ask:
        next_step = "guestkey confirm --stdin, or: guestkey confirm --browser"
        raise Fault(Code.FACTOR, "There is no terminal to ask for the code.", next_step=next_step)
    elif api.get("/me").get("factor_enrolled") is False:
        raise stepup.not_enrolled(api)
    else:
        me = stepup.prove(api, cli.out)
    cli.out.done("Confirmed.", me)


def _tell(cli: Cli, finding: doctor.Finding) -> None:
    if cli.out.for_eyes:
        cli.out.value(f"{finding.symbol} {finding.check}: {safe(finding.said)} {cli.out.time(finding.at)}".rstrip())
        if finding.mend:
            cli.out.value(f"    → {safe(finding.mend)}")
    elif not cli.as_json:
        said = f"{finding.said} {finding.at}".rstrip()
        cli.out.value("\t".join(safe(part) for part in (finding.state, finding.check, said, finding.mend)))


def _ready(cli: Cli) -> Json:
    try:
        answer = cli.api_as(None).document("/readyz")
    except Fault as fault:
        if fault.code is not Code.BACKEND or not fault.problem:
            raise
        answer = fault.problem
    return {"ready": answer.get("ready") is True, "missing": answer.get("missing") or {}}
