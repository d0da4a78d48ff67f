"""`team`, `service`, `source`: who else there is beside people and vendors, and where people sign in."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.cli import completing
from broker.cli.api import segment
from broker.cli.command import Cli, verb
from broker.cli.commands.changing import waits
from broker.cli.commands.nouns import Limit, Noun, OnlyVendor, group, mount_list, print_list
from broker.cli.faults import Code, Fault
from broker.cli.output import Column

TEAM = Noun(
    "team",
    "/teams",
    listed=(
        Column("id", "id", whole=True),
        Column("name", "name"),
        Column("vendor", "vendor", whole=True),
        Column("since", "created_at", when=True),
    ),
    shown=(
        Column("id", "id"),
        Column("name", "name"),
        Column("vendor", "vendor"),
        Column("since", "created_at", when=True),
    ),
    none="No team. Next: guestkey team new NAME",
)
MEMBERS = (Column("person", "id", whole=True), Column("name", "name"), Column("status", "status"))
SERVICE = Noun(
    "service",
    "/services",
    listed=(
        Column("id", "id", whole=True),
        Column("name", "name"),
        Column("vendor", "vendor", whole=True),
        Column("status", "status"),
    ),
    shown=(),
    none="No service. Admins make them in the portal.",
)
SOURCES = (
    Column("id", "id", whole=True),
    Column("name", "name"),
    Column("vendor", "vendor", whole=True),
    Column("status", "status"),
    Column("issuer", "issuer", whole=True),
    Column("its factor counts", "trusts_mfa"),
    Column("sign in at", "sign_in_link", whole=True),
)
FINDINGS = (Column("tried", "what"), Column("as it must be", "ok"), Column("found", "told", whole=True))
SourceId = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="The source's id.", autocompletion=completing.names("/sources", "id", "name")
    ),
]
TeamId = Annotated[
    str, typer.Argument(metavar="TEAM", help="The team's id.", autocompletion=completing.names("/teams", "id", "name"))
]
PersonId = Annotated[str, typer.Argument(metavar="PERSON", help="The person's id.", autocompletion=completing.PEOPLE)]


def mount(app: typer.Typer) -> None:
    """Add these groups."""
    teams = group(app, "team", "Sets of people of one vendor, that a grant can name.")
    verb(teams, "list", of="team")(list_teams)
    verb(teams, "show", of="team")(show_team)
    verb(teams, "new", of="team")(new_team)
    verb(teams, "add", of="team")(add)
    verb(teams, "remove", of="team")(remove)
    mount_list(group(app, "service", "Programs with a key of their own."), SERVICE)
    sources = group(app, "source", "Where people sign in; bound in the portal, by two admins.")
    verb(sources, "list", of="source")(list_sources)
    verb(sources, "check", of="source")(check_source)


def list_teams(cli: Cli, vendor: OnlyVendor = None, limit: Limit = 100) -> None:
    """List the teams you may see."""
    print_list(cli, TEAM, limit, vendor=vendor)


def show_team(cli: Cli, team: TeamId) -> None:
    """Show one team and who is in it."""
    found = cli.api.get(f"/teams/{segment(team)}")
    cli.out.facts(TEAM.shown, found)
    if not cli.as_json:
        cli.out.items(MEMBERS, found["members"], none="Nobody is in it. Next: guestkey team add TEAM PERSON")


def new_team(
    cli: Cli,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    vendor: Annotated[
        str | None,
        typer.Option(help="The vendor's id; a lead's own if left out.", autocompletion=completing.VENDORS),
    ] = None,
) -> None:
    """Make an empty team. For admins and a vendor's lead."""
    made = cli.api.post("/teams", {"name": name, "vendor": vendor})
    cli.out.done(f"The team is made: {made['id']}. Next: guestkey team add {made['id']} PERSON", made)


def add(cli: Cli, team: TeamId, person: PersonId) -> None:
    """Put a person into a team. For admins and the lead; while it holds a grant, a second person must agree."""
    added = cli.api.put(f"/teams/{segment(team)}/members/{segment(person)}")
    if not waits(cli, added, f"That {person} joins"):
        cli.out.done(f"{person} is in {team}.", added)


def remove(cli: Cli, team: TeamId, person: PersonId) -> None:
    """Take a person out of a team; leases that rest on it end. For admins, the lead, and the person."""
    ended = cli.api.delete(f"/teams/{segment(team)}/members/{segment(person)}")
    cli.out.done(f"{person} is out of {team}; {len(ended['leases'])} leases are ending.", ended)


def list_sources(cli: Cli) -> None:
    """List every sign-in source. For admins and auditors."""
    cli.out.items(SOURCES, cli.api.get("/sources")["items"], none="No source.")


def check_source(cli: Cli, source: SourceId) -> None:
    """Try a source: its provider's metadata and keys, and whether it takes our client. For admins."""
    found = cli.api.post(f"/sources/{segment(source)}/check")
    cli.out.items(FINDINGS, found["findings"], none="Nothing was tried.")
    if not found["ok"]:
        again = f"guestkey source check {source}"
        raise Fault(Code.FAULT, "Nobody can sign in there.", next_step="Mend what is wrong, then:", command=again)
