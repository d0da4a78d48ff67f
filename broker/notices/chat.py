"""Chats, through apprise: only services whose host is fixed, so that no address can point into our own network.

The plugins are taken one by one and never by apprise's own look-up, which would accept a hundred more schemes, some of
them with a host of the caller's choosing, and take seconds to load.
"""

from __future__ import annotations

import logging
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from broker.base.settings import Settings
from broker.models import Delivery
from broker.outbound.deadline import AbandonableWork, Deadline
from broker.outbound.smtp import NotSent

SERVICES = {
    "slack": ("apprise.plugins.slack", "NotifySlack"),
    "discord": ("apprise.plugins.discord", "NotifyDiscord"),
    "tgram": ("apprise.plugins.telegram", "NotifyTelegram"),
    "gchat": ("apprise.plugins.google_chat", "NotifyGoogleChat"),
    "wxteams": ("apprise.plugins.webexteams", "NotifyWebexTeams"),
    "pover": ("apprise.plugins.pushover", "NotifyPushover"),
}
LONGEST_TARGET = 500
_SAYING = AbandonableWork(8)


def fault_of(url: str) -> str:
    """What is wrong with a chat's address; empty: nothing."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_TARGET:
        return f"It must be an address of at most {LONGEST_TARGET} plain characters."
    if url.partition("://")[0] not in SERVICES:
        return f"It must begin with one of {', '.join(f'{name}://' for name in SERVICES)}."
    if "?" in url or "#" in url:
        # apprise's options could turn off the check of certificates, among other things.
        return "It may hold no options (`?`) and no `#`."
    return "" if _service(url) is not None else "This service does not take such an address."


def shown(url: str) -> str:
    """A chat's address without what is secret in it: its service."""
    return f"{urlsplit(url).scheme}://…"


def send(settings: Settings, url: str, delivery: Delivery) -> None:
    """Say one delivery in the chat.

    Raises:
        NotSent: the service did not take it.
    """
    service = _service(url)
    if service is None:
        raise NotSent("This service does not take such an address.", for_good=True)
    service.socket_connect_timeout = service.socket_read_timeout = settings.notice_timeout / 2
    link = str(settings.public_url).rstrip("/") + delivery.path
    said = partial(service.notify, title=delivery.title, body=f"{delivery.body}\n\n{link}", body_format="text")
    try:
        # apprise opens its connections itself, so they cannot be cut.
        with Deadline(settings.notice_timeout) as deadline:
            taken = _SAYING.do(said, deadline)
    except TimeoutError as error:
        raise NotSent("The chat service did not answer in time.") from error
    if not taken:
        raise NotSent("The chat service did not take it.")


def _service(url: str) -> Any:
    # It would log targets and what servers answer.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    module, name = SERVICES[url.partition("://")[0]]
    plugin = getattr(import_module(module), name)
    try:
        parsed = plugin.parse_url(url)
        return plugin(**parsed) if parsed else None
    except TypeError:
        return None
