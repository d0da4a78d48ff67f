"""`dataset`, `request`, `grant`, `who`: what there is, asking for it, deciding, and holding it."""

from __future__ import annotations

from typing import Annotated

import typer

from guestkey.cli import completing, dossier, request_prompts, waiting
from guestkey.cli.api import Json, segment
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands import bulk, changing, registering
from guestkey.cli.commands.nouns import (
    Dataset,
    GrantId,
    OptionalDataset,
    Reason,
    RequestId,
)
from guestkey.cli.commands.suspending import mount_suspending
from guestkey.cli.faults import Code, Fault
from guestkey.cli.nouns import NOUNS
from guestkey.cli.output import columns
from guestkey.cli.words import maybe_seconds_of, safe, seconds_of

SLICES = columns("slice=name, what you can read=description, kind, for=actions, state, why=state_detail")
REACH = columns("who=holder_name, holder!, people=members, role, grant!, until=ends_at@, rules")


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about these nouns, and `who`."""
    datasets, requests, grants = groups["dataset"], groups["request"], groups["grant"]
    verb(datasets, "show", of="dataset")(show_dataset)
    mount_suspending(datasets, NOUNS["dataset"])
    changing.mount_datasets(datasets)
    registering.mount(app, datasets)
    verb(requests, "new", of="request")(new_request)
    verb(requests, "show", of="request")(show_request)
    verb(requests, "approve", of="request")(approve)
    changing.mount_grants(grants)
    verb(grants, "import", of="grant")(import_grants)
    verb(grants, "revoke", of="grant")(revoke_grant)
    verb(app, "who")(who)


def show_dataset(cli: Cli, dataset: Dataset) -> None:
    """Show one dataset and its slices."""
    found = cli.api.get(f"/datasets/{segment(dataset)}")
    cli.out.facts(NOUNS["dataset"].shown, found)
    if not cli.as_json and found.get("slices"):
        cli.out.items(SLICES, found["slices"], none="")


def new_request(
    cli: Cli,
    dataset: OptionalDataset = None,
    role: Annotated[
        str | None, typer.Option(help="The role you request, such as annotator.", autocompletion=completing.ROLES)
    ] = None,
    purpose: Annotated[
        str | None, typer.Option(help="The purpose, in one sentence for the person who decides.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help=f"How long, such as 7d; {request_prompts.PERIOD} if left out.")
    ] = None,
    slice_: Annotated[
        str | None, typer.Option("--slice", help="Only this slice.", autocompletion=completing.SLICES)
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="PERSON", help="For a person of your vendor, by id; for leads.")
    ] = None,
    team: Annotated[str | None, typer.Option(help="For this team instead of yourself.")] = None,
    service: Annotated[str | None, typer.Option(help="For this service instead of yourself.")] = None,
    wait: Annotated[str | None, typer.Option(help="Wait this long for the decision, such as 10m.")] = None,
) -> int | None:
    """Request a role on a dataset; a terminal asks for missing options."""
    wish = request_prompts.RequestDraft(dataset, role, purpose, period, slice_)
    if wish.missing and cli.can_ask:
        wish = request_prompts.complete(cli.api, cli.out, wish)
    elif wish.missing:
        missing = ", ".join(wish.missing)
        raise Fault(Code.USAGE, f"Missing: {missing}.", next_step="guestkey request new --help")
    body = {
        "dataset": wish.dataset,
        "role": wish.role,
        "slice": wish.slice,
        "purpose": wish.purpose,
        "period": seconds_of(wish.period or request_prompts.PERIOD),
        "person": for_,
        "team": team,
        "service": service,
    }
    made = cli.api.post("/requests", body)
    if wait is None:
        cli.out.facts(NOUNS["request"].shown, made)
        cli.out.remark(f"Sent. Next: guestkey request show {made.get('id')}")
        return None
    cli.out.remark(f"Sent as {made.get('id')}; waiting for the decision.")
    return _tell_decision(cli, str(made.get("id")), wait)


def show_request(
    cli: Cli,
    id_: RequestId,
    wait: Annotated[str | None, typer.Option(help="Wait this long for the decision, such as 10m.")] = None,
) -> int | None:
    """Show one request."""
    if wait is not None:
        return _tell_decision(cli, id_, wait)
    _tell_request(cli, found := cli.api.get(f"/requests/{segment(id_)}"))
    if (found.get("facts") or {}).get("may_decide"):
        # Its digest has what changed meanwhile shown again instead of approved.
        approve = f"guestkey request approve {id_} --digest {safe(found['facts'].get('digest'))}"
        cli.out.remark(f"Next: {approve}   or: guestkey request refuse {id_} --reason WHY")
    return None


def approve(
    cli: Cli,
    id_: RequestId,
    period: Annotated[str | None, typer.Option(help="A shorter time, such as 7d.")] = None,
    slice_: Annotated[str | None, typer.Option("--slice", help="Only this slice.")] = None,
    max_lifetime: Annotated[str | None, typer.Option(help="Longest lifetime of a credential, such as 10m.")] = None,
    digest: Annotated[
        str | None, typer.Option(help="From `request show`; the approval is refused if the facts have changed since.")
    ] = None,
) -> None:
    """Approve a request; you can approve less time or fewer slices, never more."""
    body = {
        "period": seconds_of(period) if period else None,
        "slice": slice_,
        "max_lifetime": maybe_seconds_of(max_lifetime),
        "digest": digest,
    }
    cli.out.done(f"Request {id_} approved.", cli.api.post(f"/requests/{segment(id_)}/approve", body))


def import_grants(cli: Cli, file: bulk.File, dry_run: bulk.DryRun = False, keep_going: bulk.KeepGoing = False) -> int:
    """Give grants from a CSV file: dataset,role,purpose,until,person,team,slice. For a lead each line is a request.

    Exit code 3: some lines were refused; without --keep-going no line was processed.
    """
    return bulk.run(cli, file, "/grants/import", {}, dry_run=dry_run, keep_going=keep_going)


def revoke_grant(
    cli: Cli,
    id_: GrantId,
    reason: Reason,
    wait: Annotated[str, typer.Option(help="How long to wait for backends to confirm the end of its leases.")] = "30s",
) -> int:
    """End a grant and all its leases. Exit code 7: an end is not confirmed yet, 9: one failed."""
    ended = cli.api.post(f"/grants/{segment(id_)}/revoke", {"reason": reason})
    cli.out.remark(f"Grant {id_} revoked: it gives no more access.")
    leases = waiting.until_all_ended(cli.api, cli.out, ended.get("leases") or [], seconds=seconds_of(wait))
    for lease in leases:
        cli.out.remark(waiting.outcome(lease))
    if cli.as_json:
        cli.out.document({**ended, "outcomes": leases})
    return waiting.code_of(*leases)


def who(cli: Cli, dataset: Dataset) -> None:
    """Show who has access to a dataset, and why; for its owner, admins and auditors."""
    answer = cli.api.get(f"/datasets/{segment(dataset)}/who")
    cli.out.items(REACH, answer.get("items") or [], none="No one has access.")


def _tell_request(cli: Cli, found: Json) -> None:
    if cli.as_json:
        cli.out.document(found)
        return
    columns, told = dossier.told(found.get("facts") or {})
    cli.out.facts((*NOUNS["request"].shown, *columns), {**found, "told": told})


def _tell_decision(cli: Cli, request_id: str, wait: str) -> int:
    found = waiting.until_decided(cli.api, cli.out, request_id, seconds=seconds_of(wait))
    _tell_request(cli, found)
    state = found.get("state")
    if state == "pending":
        cli.out.remark(f"No decision yet. Next: guestkey request show {request_id} --wait 10m")
        return Code.WAITING
    return Code.DONE if state == "approved" else Code.DENIED
