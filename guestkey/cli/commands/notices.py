"""`notice`: what one was told, and what of it is mailed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from guestkey.cli.command import Cli, Groups, verb
from guestkey.cli.output import columns

_TOPICS = columns("topic=name, mail=choice, about")


class MailChoice(StrEnum):
    """How a topic is mailed."""

    NOW = "now"
    DIGEST = "digest"
    OFF = "off"


def mount(app: typer.Typer, groups: Groups) -> None:
    """Add what is special about notices."""
    notices = groups["notice"]
    verb(notices, "read", of="notice")(read)
    verb(notices, "choices", of="notice")(choices)
    verb(notices, "choose", of="notice")(choose)


def read(cli: Cli) -> None:
    """Mark all your notices as read."""
    newest = cli.api.pages("/notices", 1)
    answer = cli.api.post("/notices/read", {"up_to": newest[0]["id"]}) if newest else {"unread": 0}
    cli.out.done(
        "All notices are read." if not answer["unread"] else f"{answer['unread']} new notices arrived meanwhile.",
        answer,
    )


def choices(cli: Cli) -> None:
    """Show which notices are mailed to you, where, and when."""
    held = cli.api.get("/notices/choices")
    if cli.as_json:
        cli.out.document({"items": held["topics"], **{key: value for key, value in held.items() if key != "topics"}})
        return
    cli.out.items(_TOPICS, held["topics"], none="No topics for you.")
    if not held["mails"]:
        cli.out.remark("This installation sends no mail: notices stay in the portal.")
    else:
        where = held["address"] or "nowhere: your identity provider gives no verified address"
        cli.out.remark(f"Mail goes to {where}. Digest: {held['digest_hour']:02d}:00 {held['digest_zone']}.")


def choose(
    cli: Cli,
    topic: Annotated[str, typer.Argument(help="As `guestkey notice choices` lists it.", metavar="TOPIC")],
    choice: Annotated[MailChoice, typer.Argument(help="At once, in a digest once a day, or not by mail.")],
    hour: Annotated[int | None, typer.Option(min=0, max=23, help="Hour of the digest.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone of the hour, such as Europe/Berlin.")] = None,
) -> None:
    """Choose how a topic is mailed to you."""
    body = {"topics": {topic: choice.value}, "digest_hour": hour, "digest_zone": zone}
    cli.out.done(f"{topic}: {choice.value}.", cli.api.post("/notices/choices", body))
