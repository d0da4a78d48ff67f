"""`suspend`, its dry run and `resume` of people, vendors and datasets; `suspension` with the reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from broker.cli import completing
from broker.cli.api import Json, segment
from broker.cli.command import Cli, verb
from broker.cli.commands.nouns import Id, Limit, Noun, Reason, group, mount_show, print_list
from broker.cli.faults import Code, Fault
from broker.cli.output import Column, Progress
from broker.cli.words import safe, seconds_of

SUSPENSION = Noun(
    "suspension",
    "/suspensions",
    listed=(
        Column("id", "id", whole=True),
        Column("what", "what"),
        Column("name", "name"),
        Column("since", "started_at", when=True),
        Column("lifted", "resumed_at", when=True),
    ),
    shown=(
        Column("id", "id"),
        Column("what", "what"),
        Column("name", "name"),
        Column("target", "target"),
        Column("reason", "reason"),
        Column("message", "message"),
        Column("since", "started_at", when=True),
        Column("lifted", "resumed_at", when=True),
        Column("leases", "total"),
        Column("confirmed ended", "confirmed"),
        Column("failing", "failing"),
        Column("longest exposure", "longest", seconds=True),
        Column("accepted offline until", "offline_until", when=True),
    ),
    none="Nothing was suspended.",
)
_PAUSE = 0.3
_COUNTS = ("people", "services", "sessions", "tokens", "grants", "requests")
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would end, how fast, and what would not.")]
Message = Annotated[str, typer.Option("--message", "-m", help="What those shut out are told when they sign in.")]
Wait = Annotated[str, typer.Option(help="How long to wait until backends confirm the end of credentials.")]
OptionalReason = Annotated[str | None, typer.Option("--reason", "-r", help="Why; kept on record.")]


def mount(app: typer.Typer) -> None:
    """Add the group of reports."""
    suspensions = group(app, "suspension", "Who and what was shut out, and what became of each credential.")
    verb(suspensions, "list", of="suspension")(list_suspensions)
    mount_show(suspensions, SUSPENSION)


def list_suspensions(
    cli: Cli,
    state: Annotated[
        str | None, typer.Option(help="open or lifted.", autocompletion=completing.words("open", "lifted"))
    ] = None,
    what: Annotated[str | None, typer.Option(help="vendor, person or dataset.")] = None,
    limit: Limit = 100,
) -> None:
    """List suspensions."""
    print_list(cli, SUSPENSION, limit, state=state, what=what)


def mount_suspending(app: typer.Typer, noun: Noun) -> None:
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
        cli.out.remark(f"{noun.name.capitalize()} {id_} suspended: new use is refused from now on.")
        return _watch(cli, str(answer["suspension"]), seconds_of(wait))

    def resume(cli: Cli, id_: Id, reason: Reason) -> None:
        answer = cli.api.post(f"{noun.path}/{segment(id_)}/resume", {"reason": reason})
        cli.out.done(f"{noun.name.capitalize()} {id_} is active again; no ended lease comes back.", answer)

    for body in (suspend, resume):
        body.__annotations__["id_"] = noun.argument
    suspend.__doc__ = f"Suspend a {noun.name}: no new use, every session out, every live lease ended."
    resume.__doc__ = f"Let a {noun.name} in again."
    verb(app, "suspend", of=noun.name)(suspend)
    verb(app, "resume", of=noun.name)(resume)


def _tell_dry_run(cli: Cli, noun: Noun, id_: str) -> int:
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
        cli.out.value(f"{kind} leases\t{count}\tat worst {'until they expire' if worst is None else f'{worst} s'}")
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
                report = cli.api.get(path)
                progress.tell(f"{report['confirmed']} of {report['total']} confirmed by their backend")
                if report["finished"] or report["failing"] or time.monotonic() >= end:
                    break
                time.sleep(_PAUSE)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"It goes on all the same. Next: guestkey suspension show {suspension_id}") from None
    return _tell_outcome(cli, report)


def _tell_outcome(cli: Cli, report: Json) -> int:
    unended = [outcome for outcome in report["outcomes"] if outcome["seconds"] is None]
    for outcome in unended:
        how = "could not be ended yet; it is retried until it is" if outcome["error"] else "is not confirmed yet"
        cli.out.remark(f"Lease {safe(outcome['lease'])} {how}. Next: guestkey lease show {safe(outcome['lease'])}")
    if report.get("offline_until"):
        cli.out.remark(f"Whoever checks a token offline, without asking, accepts it until {report['offline_until']}.")
    said = f"{report['confirmed']} of {report['total']} leases confirmed ended."
    cli.out.done(f"{said} Report: guestkey suspension show {safe(report['id'])}", report)
    if report["finished"]:
        return Code.DONE
    return Code.PARTLY if report["failing"] else Code.WAITING
