"""`team`, `service`, `source`: who else there is beside people and vendors, and where people sign in."""

from __future__ import annotations

from typing import Annotated

import typer

from guestkey.cli import completing
from guestkey.cli.api import segment
from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.commands.changing import waits
from guestkey.cli.faults import Code, Fault
from guestkey.cli.nouns import NOUNS
from guestkey.cli.output import columns

MEMBERS = columns("person=id!, name, status")
FINDINGS = columns("tried=what, as required=ok, found=told!")
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


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about teams and sources."""
    teams = groups["team"]
    verb(teams, "show", of="team")(show_team)
    verb(teams, "new", of="team")(new_team)
    verb(teams, "add", of="team")(add)
    verb(teams, "remove", of="team")(remove)
    verb(groups["source"], "check", of="source")(check_source)


def show_team(cli: Cli, team: TeamId) -> None:
    """Show one team and its members."""
    found = cli.api.get(f"/teams/{segment(team)}")
    cli.out.facts(NOUNS["team"].shown, found)
    if not cli.as_json:
        cli.out.items(MEMBERS, found["members"], none="No members yet. Next: guestkey team add TEAM PERSON")


def new_team(
    cli: Cli,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name.")],
    vendor: Annotated[
        str | None,
        typer.Option(help="The vendor's id; default for a lead: their own vendor.", autocompletion=completing.VENDORS),
    ] = None,
) -> None:
    """Create an empty team. For admins and a vendor's lead."""
    made = cli.api.post("/teams", {"name": name, "vendor": vendor})
    cli.out.done(f"The team was created: {made['id']}. Next: guestkey team add {made['id']} PERSON", made)


def add(cli: Cli, team: TeamId, person: PersonId) -> None:
    """Add a person to a team. For admins and the lead; if the team has a grant, a second person must approve."""
    added = cli.api.put(f"/teams/{segment(team)}/members/{segment(person)}")
    if not waits(cli, added, f"That {person} joins"):
        cli.out.done(f"{person} was added to {team}.", added)


def remove(cli: Cli, team: TeamId, person: PersonId) -> None:
    """Remove a person from a team; leases that need it end. For admins, the lead, and the person."""
    ended = cli.api.delete(f"/teams/{segment(team)}/members/{segment(person)}")
    cli.out.done(f"{person} was removed from {team}; {len(ended['leases'])} leases are ending.", ended)


def check_source(cli: Cli, source: SourceId) -> None:
    """Test a sign-in source: its provider's metadata and keys, and our client id and secret. For admins."""
    found = cli.api.post(f"/sources/{segment(source)}/check")
    cli.out.items(FINDINGS, found["findings"], none="Nothing was tested.")
    if not found["ok"]:
        again = f"guestkey source check {source}"
        raise Fault(Code.FAULT, "No one can sign in there.", next_step="Fix the findings, then run:", command=again)
