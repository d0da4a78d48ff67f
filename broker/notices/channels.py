"""Channels: webhooks and chats of the organisation, bound and removed by admins. Targets and secrets are wrapped.

A webhook gets one signed POST for each delivery, as the Standard Webhooks specification has it:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

Chats go through apprise: only services whose host is fixed, so that no address can point into our own network. The
plugins are taken one by one and never by apprise's own look-up, which would accept a hundred more schemes, some of them
with a host of the caller's choosing, and take seconds to load.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select, update
from standardwebhooks.webhooks import Webhook

from broker.base import words
from broker.base.database import Transaction
from broker.base.errors import Conflict, Invalid
from broker.base.ids import new_id
from broker.base.paging import Page, Window, page
from broker.base.settings import Settings
from broker.identity.caller import Caller
from broker.identity.nouns import Noun
from broker.identity.permissions import everything_or_nothing, require_admin, require_reader
from broker.keystore.vault import VaultRefused
from broker.log import audit
from broker.models import CHANNEL_KINDS, TOPICS, Delivery, NoticeChannel
from broker.notices.digests import waiting
from broker.outbound import http_client
from broker.outbound.deadline import AbandonableWork, Deadline
from broker.outbound.smtp import NotSent
from broker.runtime.parts import Parts

TEST = "channel.test"
MOST = 20
_KEY = "channels"
CHANNELS = Noun(
    "channel",
    "channels",
    "ch",
    NoticeChannel,
    seen=everything_or_nothing,
    check=lambda _, caller: require_reader(caller),
    called=NoticeChannel.name,
    events={
        "channel.bound": "{who} added the webhook or chat {whom} for notices.",
        "channel.removed": "{who} removed the webhook or chat {whom}.",
        "channel.tested": "{who} sent a test notice to {whom}.",
    },
)
_GONE = 410
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


@dataclass(frozen=True, slots=True)
class NewChannel:
    """What is bound. `target`: a webhook's address, or a chat's as apprise writes it."""

    kind: str
    name: str
    target: str = field(repr=False)
    topics: Sequence[str]


@dataclass(frozen=True, slots=True)
class Bound:
    """A channel just bound, and the secret its webhooks are signed with: shown this once."""

    channel: NoticeChannel
    secret: str = field(repr=False)


def bind(parts: Parts, caller: Caller, new: NewChannel) -> Bound:
    """Bind a channel.

    Raises:
        Forbidden: the caller is no admin.
        Invalid: kind, name, target or topics cannot be used.
        Conflict: there are too many.
        BackendDown: the key store, which wraps the target, does not answer.
    """
    require_admin(caller)
    _check(parts.settings, new)
    name, channel_id = words.name(new.name, "/name"), new_id("ch")
    # As receivers take it: 32 bytes.
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() if new.kind == "webhook" else ""
    kept = json.dumps({"target": new.target, "secret": secret})
    wrapped = parts.vault.encrypt(_KEY, kept.encode(), context=channel_id)
    with parts.database.transaction_now() as (tx, now):
        if tx.execute(select(func.count()).where(NoticeChannel.removed_at.is_(None))).scalar_one() >= MOST:
            raise Conflict(f"There are already {MOST} channels.", advice="Remove one that is no longer needed.")
        channel = NoticeChannel(
            id=channel_id,
            kind=new.kind,
            name=name,
            shown=http_client.shown(new.target) if new.kind == "webhook" else _chat_shown(new.target),
            wrapped=wrapped,
            topics=sorted(set(new.topics)),
            made_by=caller.id,
            created_at=now,
        )
        tx.add(channel)
        tx.flush()
        _record(tx, "channel.bound", channel, caller, now)
    return Bound(channel, secret)


def remove(tx: Transaction, caller: Caller, channel_id: str, now: datetime) -> NoticeChannel:
    """Remove a channel with its target and secret; what still waits for it is given up. Twice changes nothing."""
    require_admin(caller)
    channel = CHANNELS.one(tx, caller, channel_id, lock=True)
    if channel.removed_at is None:
        channel.removed_at, channel.wrapped = now, ""
        tx.flush()
        waits = update(Delivery).where(Delivery.channel_id == channel.id, Delivery.state == "waiting")
        tx.execute(waits.values(state="given_up", ended_at=now, last_fault="The channel was removed."))
        _record(tx, "channel.removed", channel, caller, now)
    return channel


def test(parts: Parts, tx: Transaction, caller: Caller, channel_id: str, now: datetime) -> Delivery:
    """Let the worker send a test; its delivery tells what became of it."""
    require_admin(caller)
    channel = CHANNELS.one(tx, caller, channel_id, lock=True)
    if channel.removed_at is not None:
        raise Conflict("This channel was removed.")
    delivery = waiting(
        TEST,
        "test",
        now,
        channel_id=channel.id,
        title="A test from Guestkey",
        body=f"An admin sent this test notice to {channel.name}. It has arrived.",
        path="/settings/notices",
    )
    tx.add(delivery)
    tx.flush()
    _record(tx, "channel.tested", channel, caller, now)
    return delivery


def list_channels(tx: Transaction, caller: Caller) -> Sequence[NoticeChannel]:
    """The channels in use, for admins and auditors."""
    query = CHANNELS.query(tx, caller).where(NoticeChannel.removed_at.is_(None)).order_by(NoticeChannel.id)
    return tx.scalars(query).all()


def deliveries(tx: Transaction, caller: Caller, window: Window) -> Page[Delivery]:
    """What was sent or is to be, newest first: by mail and by channels. For admins and auditors."""
    require_reader(caller)
    query = select(Delivery).where(Delivery.state.in_(("waiting", "delivered", "given_up")))
    return page(tx, query, Delivery.id, window)


def send(parts: Parts, delivery: Delivery, now: datetime) -> None:
    """Send one delivery by its channel.

    Raises:
        NotSent: it was not taken.
        BackendDown: the key store, which unwraps the target, does not answer.
    """
    with parts.database.transaction() as tx:
        channel = tx.get_one(NoticeChannel, delivery.channel_id)
    if channel.removed_at is not None:
        raise NotSent("The channel was removed.", for_good=True)
    try:
        kept = json.loads(parts.vault.decrypt(_KEY, channel.wrapped, context=channel.id))
    except VaultRefused as error:
        raise NotSent("The channel's target cannot be decrypted: add the channel again.") from error
    if channel.kind == "chat":
        send_chat(parts.settings, kept["target"], delivery)
    else:
        _send_webhook(parts.settings, kept["target"], kept["secret"], delivery, now)


def _check(settings: Settings, new: NewChannel) -> None:
    if new.kind not in CHANNEL_KINDS:
        raise Invalid(f"A channel is one of {', '.join(CHANNEL_KINDS)}.", field="/kind")
    wrong = http_client.fault_of(new.target) if new.kind == "webhook" else chat_fault(new.target)
    if wrong:
        raise Invalid(wrong, field="/target")
    if new.kind == "webhook" and new.target.startswith("http:") and not settings.notice_networks:
        raise Invalid(
            "Webhooks must use https://.",
            field="/target",
            advice="See GUESTKEY_NOTICE_NETWORKS for addresses inside your network.",
        )
    if new.kind == "webhook" and http_client.is_inner_address(settings, new.target):
        raise Invalid(
            "The target lies inside a network: GUESTKEY_NOTICE_NETWORKS does not name it.",
            field="/target",
            advice="Name a public address, or let the operator name the network for every web replica and worker.",
        )
    if not new.topics or not set(new.topics) <= set(TOPICS):
        raise Invalid("Choose at least one topic.", field="/topics")


def _record(tx: Transaction, kind: str, channel: NoticeChannel, caller: Caller, now: datetime) -> None:
    details = {"kind": channel.kind, "topics": list(channel.topics)}
    personal, actor = {"name": channel.name, "target": channel.shown}, caller.subject
    audit.record(tx, kind, actor=actor, subject=channel.id, now=now, details=details, personal=personal)


def _send_webhook(settings: Settings, url: str, secret: str, delivery: Delivery, now: datetime) -> None:
    """Post one delivery. Receivers know a repeat by `webhook-id`.

    Raises:
        NotSent: it was not taken.
    """
    body = json.dumps(
        {
            "type": delivery.kind,
            "timestamp": delivery.created_at.astimezone(UTC).isoformat(),
            "data": {
                "topic": delivery.topic,
                "title": delivery.title,
                "text": delivery.body,
                "link": str(settings.public_url).rstrip("/") + delivery.path,
            },
        },
        ensure_ascii=False,
    )
    at = now.astimezone(UTC)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Guestkey",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery.id, at, body),
    }
    status = http_client.post(settings, url, body.encode(), headers)
    if 300 <= status < 400:
        raise NotSent(f"The target redirects ({status}), which is not followed.")
    if not 200 <= status < 300:
        raise NotSent(f"The target answered {status}.", for_good=status == _GONE)


def chat_fault(url: str) -> str:
    """What is wrong with a chat's address; empty: nothing."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > LONGEST_TARGET:
        return f"It must be an address of at most {LONGEST_TARGET} plain characters."
    if url.partition("://")[0] not in SERVICES:
        return f"It must begin with one of {', '.join(f'{name}://' for name in SERVICES)}."
    if "?" in url or "#" in url:
        # apprise's options could turn off the check of certificates, among other things.
        return "It may hold no options (`?`) and no `#`."
    return "" if _service(url) is not None else "This service does not take such an address."


def _chat_shown(url: str) -> str:
    """A chat's address without what is secret in it: its service."""
    return f"{urlsplit(url).scheme}://…"


def send_chat(settings: Settings, url: str, delivery: Delivery) -> None:
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
