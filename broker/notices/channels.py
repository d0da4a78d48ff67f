"""Channels: webhooks and chats of the organisation, bound and removed by admins. Targets and secrets are wrapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update

from broker.base import words
from broker.base.database import Transaction
from broker.base.database import now as clock
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
from broker.notices import chat, webhooks
from broker.outbound import http_client
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
    secret = webhooks.new_secret() if new.kind == "webhook" else ""
    kept = json.dumps({"target": new.target, "secret": secret})
    wrapped = parts.vault.encrypt(_KEY, kept.encode(), context=channel_id)
    with parts.database.transaction() as tx:
        now = clock(tx)
        if tx.execute(select(func.count()).where(NoticeChannel.removed_at.is_(None))).scalar_one() >= MOST:
            raise Conflict(f"There are already {MOST} channels.", advice="Remove one that is no longer needed.")
        channel = NoticeChannel(
            id=channel_id,
            kind=new.kind,
            name=name,
            shown=(http_client if new.kind == "webhook" else chat).shown(new.target),
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
        tx.execute(
            update(Delivery)
            .where(Delivery.channel_id == channel.id, Delivery.state == "waiting")
            .values(state="given_up", ended_at=now, last_fault="The channel was removed.")
        )
        _record(tx, "channel.removed", channel, caller, now)
    return channel


def test(parts: Parts, tx: Transaction, caller: Caller, channel_id: str, now: datetime) -> Delivery:
    """Let the worker send a test; its delivery tells what became of it."""
    require_admin(caller)
    channel = CHANNELS.one(tx, caller, channel_id, lock=True)
    if channel.removed_at is not None:
        raise Conflict("This channel was removed.")
    delivery = Delivery(
        id=new_id("dl"),
        notice_id=new_id("no"),
        channel_id=channel.id,
        kind=TEST,
        topic="test",
        title="A test from Guestkey",
        body=f"An admin sent this test notice to {channel.name}. It has arrived.",
        path="/settings/notices",
        state="waiting",
        created_at=now,
        next_attempt_at=now,
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
        chat.send(parts.settings, kept["target"], delivery)
    else:
        webhooks.send(parts.settings, kept["target"], kept["secret"], delivery, now)


def _check(settings: Settings, new: NewChannel) -> None:
    if new.kind not in CHANNEL_KINDS:
        raise Invalid(f"A channel is one of {', '.join(CHANNEL_KINDS)}.", field="/kind")
    wrong = (http_client if new.kind == "webhook" else chat).fault_of(new.target)
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
    audit.record(
        tx,
        kind,
        actor=caller.subject,
        subject=channel.id,
        now=now,
        details={"kind": channel.kind, "topics": list(channel.topics)},
        personal={"name": channel.name, "target": channel.shown},
    )
