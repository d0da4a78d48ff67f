"""`suspend`, its dry run and `resume` of people, vendors and datasets; `suspension` with the reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from guestkey.cli.api import Json, segment
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands.nouns import Id, Reason, argument_of
from guestkey.cli.faults import Code, Fault
from guestkey.cli.nouns import NOUNS, ClientNoun
from guestkey.cli.output import Progress
from guestkey.cli.words import safe, seconds_of

_PAUSE = 0.3
_COUNTS = ("people", "services", "sessions", "tokens", "grants", "requests")
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would end, how fast, and what would not.")]
Message = Annotated[
    str, typer.Option("--message", "-m", help="Message shown to the people affected when they sign in.")
]
Wait = Annotated[str, typer.Option(help="How long to wait until backends confirm the end of credentials.")]
OptionalReason = Annotated[str | None, typer.Option("--reason", "-r", help="The reason; recorded in the audit log.")]


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add the report of a suspension."""
    show_suspension.__annotations__["id_"] = argument_of(NOUNS["suspension"])
    verb(groups["suspension"], "show", of="suspension")(show_suspension)


def show_suspension(cli: Cli, id_: Id) -> None:
    """Show one suspension: what has not ended, and how each kind and each credential ended."""
    report = cli.api.get(f"{NOUNS['suspension'].path}/{segment(id_)}")
    if cli.as_json:
        cli.out.document(report)
        return
    _tell_open(cli, report)
    cli.out.facts(NOUNS["suspension"].shown, report)
    for line in _by_kind(cli, report):
        cli.out.value(line)
    for outcome in report["outcomes"]:
        cli.out.value(_came_of(cli, outcome))


def mount_suspending(app: typer.Typer, noun: ClientNoun) -> None:
    """Add `suspend` and `resume` to a noun."""

    def suspend(
        cli: Cli,
        id_: Id,
        reason: OptionalReason = None,
        message: Message = "",
        dry_run: DryRun = False,
        wait: Wait = "60s",
    ) -> int:
        if dry_run:
            return _tell_dry_run(cli, noun, id_)
        if not reason:
            raise Fault(Code.USAGE, "Why? Give --reason.", next_step=f"guestkey {noun.name} suspend {id_} --dry-run")
        body = {"reason": reason, "message": message}
        answer = cli.api.post(f"{noun.path}/{segment(id_)}/suspend", body)
        cli.out.remark(f"{noun.name.capitalize()} {id_} suspended: new sessions are refused from now on.")
        return _watch(cli, str(answer["suspension"]), seconds_of(wait))

    def resume(cli: Cli, id_: Id, reason: Reason) -> None:
        answer = cli.api.post(f"{noun.path}/{segment(id_)}/resume", {"reason": reason})
        cli.out.done(f"{noun.name.capitalize()} {id_} is active again; leases that ended stay ended.", answer)

    for body in (suspend, resume):
        body.__annotations__["id_"] = argument_of(noun)
    suspend.__doc__ = f"Suspend a {noun.name}: no new credentials; every session and every live lease ends."
    resume.__doc__ = f"Resume a {noun.name}."
    verb(app, "suspend", of=noun.name)(suspend)
    verb(app, "resume", of=noun.name)(resume)


def _tell_dry_run(cli: Cli, noun: ClientNoun, id_: str) -> int:
    run = cli.api.get("/suspensions/preview", what=noun.name, target=id_)
    if cli.as_json:
        cli.out.document(run)
        return Code.DONE
    counts: Mapping[str, Any] = run["counts"]
    cli.out.remark("Nothing has happened yet. This would end:")
    for name in _COUNTS:
        if counts[name]:
            cli.out.value(f"{name}\t{counts[name]}")
    for kind, count in counts["leases"].items():
        worst = run["endings"][kind]["worst_case"]
        expire = f"until they expire, {cli.out.time(run['latest'][kind])} the last"
        cli.out.value(f"{kind} leases\t{count}\tat worst {expire if worst is None else f'{worst} s'}")
    cli.out.remark("It would not end:")
    for line in run["remains"]:
        cli.out.remark(f"  {safe(line)}")
    return Code.DONE


def _watch(cli: Cli, suspension_id: str, seconds: float) -> int:
    """Follow a suspension until every end is confirmed: 7 if some are not yet, 9 if some failed."""
    end = time.monotonic() + seconds
    path = f"/suspensions/{segment(suspension_id)}"
    try:
        with Progress(cli.out) as progress:
            while True:
                report = cli.api.get(path, only_open="true")
                progress.tell(_so_far(report))
                settled = report["confirmed"] + report.get("exposed", 0) == report["total"]
                if settled or report["failing"] or time.monotonic() >= end:
                    break
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"It continues in the background. Next: guestkey suspension show {suspension_id}"
        ) from None
    return _tell_outcome(cli, cli.api.get(path))


def _so_far(report: Json) -> str:
    failing = f", {report['failing']} not ended yet" if report["failing"] else ""
    held = f", {report['exposed']} that cannot end sooner" if report.get("exposed") else ""
    return f"{report['confirmed']} of {report['total']} confirmed by their backend{failing}{held}"


def _tell_outcome(cli: Cli, report: Json) -> int:
    _tell_open(cli, report)
    for line in _by_kind(cli, report):
        cli.out.remark(line)
    said = f"{report['confirmed']} of {report['total']} leases confirmed ended."
    cli.out.done(f"{said} Report: guestkey suspension show {safe(report['id'])}", report)
    if report["finished"]:
        return Code.DONE
    return Code.PARTLY if report["failing"] else Code.WAITING


def _tell_open(cli: Cli, report: Json) -> None:
    """What is not ended, first, each with what is done about it and what can be."""
    for outcome in report["outcomes"]:
        if outcome["seconds"] is not None:
            continue
        lease = safe(outcome["lease"])
        if outcome["state"] == "revoke_failed":
            again = f"attempt {outcome['attempts']}, next {cli.out.time(outcome['next_attempt_at'])}"
            cli.out.alarm(f"Lease {lease} could not be ended yet; Guestkey keeps trying: {again}.")
            if outcome["by_hand"]:
                cli.out.remark(f"  To end it manually at its backend: {safe(outcome['by_hand'])}")
        else:
            at_most = f"; exposed until {cli.out.time(outcome['exposed_until'])} at the latest"
            cli.out.remark(f"Lease {lease} is not confirmed yet{at_most if outcome['exposed_until'] else ''}.")
        cli.out.remark(f"  Next: guestkey lease show {lease}")


def _by_kind(cli: Cli, report: Json) -> list[str]:
    lines = []
    for one in report.get("by_kind", []):
        said = (
            f"{safe(one['kind'])}\t{one['confirmed']} of {one['total']} ended, the slowest after {one['longest']:.1f} s"
        )
        if one["exposed_until"]:
            said += f"; {one['exposed']} cannot end before {cli.out.time(one['exposed_until'])}"
        if one["offline_until"]:
            offline = one.get("offline", "some")
            said += f"; {offline} accepted until {cli.out.time(one['offline_until'])} by services that verify offline"
        lines.append(said)
    return lines


def _came_of(cli: Cli, outcome: Json) -> str:
    """One credential: ended at, confirmed by what, or exposed until when."""
    what = [safe(outcome["lease"]), safe(outcome["kind"])]
    until = f"exposed until {cli.out.time(outcome['exposed_until'])}" if outcome["exposed_until"] else ""
    if outcome["ended_at"] is None:
        return "\t".join([*what, safe(outcome["state"]), until])
    ended = [f"ended {cli.out.time(outcome['ended_at'])}", safe(outcome["confirmed_by"])]
    return "\t".join([*what, *ended, *([until] if until else [])])
