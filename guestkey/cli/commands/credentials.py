"""`connect`, `run`, `why`: a program with a fresh credential for one dataset, or why there is none."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from guestkey.cli import children, completing, programs, reasons, variables
from guestkey.cli.api import segment
from guestkey.cli.clients import client_of
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands import getting
from guestkey.cli.commands.nouns import Action, AnyKind, Dataset, Lifetime, MaybeKind, Slice
from guestkey.cli.faults import Code
from guestkey.cli.output import columns, mappings
from guestkey.cli.problems import filled
from guestkey.cli.temporary_credential import borrowed
from guestkey.cli.wanted import Wanted, settled
from guestkey.cli.words import maybe_seconds_of, safe


def mount(app: typer.Typer, _groups: Groups) -> None:
    """Add these commands."""
    verb(app, "connect", own_code=Code.CHILD_NOT_RUN)(connect)
    verb(app, "run", own_code=Code.CHILD_NOT_RUN)(run)
    getting.mount(app)
    verb(app, "why")(why)


def connect(
    cli: Cli,
    dataset: Dataset,
    slice_: Slice = None,
    kind: MaybeKind = None,
    lifetime: Lifetime = None,
    action: Action = "read",
) -> int:
    """Open a dataset in psql, or the program for its kind, with a fresh lease that ends with the program."""
    wanted = settled(cli.api, Wanted(dataset, kind, slice_, action, maybe_seconds_of(lifetime)))
    # Where there is no slice, and so no kind, the gate says why.
    program = programs.program_for(dataset, wanted.kind, action) if wanted.kind else ""
    with borrowed(cli, wanted) as credential, programs.beside(credential) as beside:
        program = program or programs.program_for(dataset, credential.kind, action)
        command, said = client_of(credential.kind).opening(program, credential, beside)
        for line in said:
            cli.out.remark(safe(line))
        return children.run(command, variables.environment(credential.kind, credential.values, os.environ) | beside)


def run(
    cli: Cli,
    dataset: Dataset,
    command: Annotated[list[str], typer.Argument(help="After --: the program and its arguments.")],
    slice_: Slice = None,
    kind: MaybeKind = None,
    lifetime: Lifetime = None,
    action: Action = "read",
) -> int:
    """Run a program with a fresh lease in its environment (PG…, AWS_…, GUESTKEY_…), and end the lease when it ends."""
    wanted = settled(cli.api, Wanted(dataset, kind, slice_, action, maybe_seconds_of(lifetime)))
    with borrowed(cli, wanted) as credential, programs.beside(credential) as beside:
        return children.run(command, variables.environment(credential.kind, credential.values, os.environ) | beside)


def why(
    cli: Cli,
    dataset: Dataset,
    action: Action = "read",
    slice_: Slice = None,
    kind: AnyKind = None,
    person: Annotated[
        str | None,
        typer.Option(help="Another person's id; for owners, admins and auditors.", autocompletion=completing.PEOPLE),
    ] = None,
) -> int:
    """Explain whether you could get a credential now, with every reason. Issues nothing; exit code 3 means no."""
    query = {"action": action, "slice": slice_, "kind": kind, "person": person}
    decision = cli.api.get(f"/datasets/{segment(dataset)}/why", **query)
    allowed = decision.get("allowed") is True
    if cli.as_json:
        cli.out.document(decision)
    else:
        cli.out.facts(_DECISION, decision)
        found = mappings(decision.get("reasons"))
        cli.out.reasons(found, about="" if person else dataset)
        wanted = "guestkey connect {dataset}" if allowed else reasons.next_command(found)
        if (waiting := decision.get("pending_request")) and not allowed:
            cli.out.say(f"Next: guestkey request show {safe(waiting)}")
            return Code.DENIED
        if person is None and (said := filled([wanted], "why", {"dataset": dataset})):
            cli.out.say(f"Next: {said}")
    return Code.DONE if allowed else Code.DENIED


_DECISION = columns(
    "allowed, slice, longest lifetime=max_lifetime#, rule=rules, policy revision=policy_revision, passed"
)
