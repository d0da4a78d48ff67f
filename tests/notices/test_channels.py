"""Webhooks and chats: signed, tried again, and never a way into our own network."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from sqlalchemy import select
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from broker.base.database import clock
from broker.base.errors import Conflict, Forbidden, Invalid, NotFound
from broker.base.ids import new_id
from broker.base.paging import Window
from broker.log import audit
from broker.models import Delivery, NoticeChannel
from broker.notices import channels, delivery_retries, digests, outbox
from broker.notices.channels import Bound, NewChannel
from broker.outbound import http_client as outward
from broker.outbound.smtp import NotSent
from broker.runtime.parts import Parts
from tests.notices.conftest import Office
from tests.notices.test_mail import alarm, asks, boss, scene
from tests.support.world import Signed


def bind(office: Office, target: str = "", **changes: Any) -> tuple[Signed, Bound]:
    """A webhook for emergencies, bound by an admin."""
    admin = office.world.person(roles=("admin",))
    new: dict[str, Any] = {"kind": "webhook", "name": "Incidents", "topics": ["emergency"]}
    return admin, channels.bind(
        office.world.parts, admin.caller, NewChannel(target=target or office.receiver.url, **(new | changes))
    )


def sent(office: Office, bound: Bound) -> list[Delivery]:
    with office.world.database.transaction() as tx:
        query = select(Delivery).where(Delivery.channel_id == bound.channel.id).order_by(Delivery.id)
        return list(tx.scalars(query))


def without_networks(office: Office) -> Parts:
    """A worker whose operator allowed nothing inside."""
    return replace(office.parts, settings=office.parts.settings.model_copy(update={"notice_networks": []}))


def test_webhook_signature_verifies(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.rounds()
    [(headers, body)] = office.receiver.arrived
    told = Webhook(bound.secret).verify(body, headers)
    assert told["type"] == "installation.opened" and told["data"]["link"].endswith("/installation")
    [delivery] = sent(office, bound)
    assert (headers["webhook-id"], delivery.state) == (delivery.id, "delivered")
    with pytest.raises(WebhookVerificationError):
        Webhook(bound.secret).verify(body.replace(b"open", b"shut"), headers)


def test_failed_webhook_is_retried_with_the_same_id(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.receiver.answers = [500, 503]
    office.round()
    assert sent(office, bound)[0].last_fault == "The target answered 500."
    assert office.round() == 0
    office.round(minutes=1)
    office.round(minutes=5)
    assert len({headers["webhook-id"] for headers, _ in office.receiver.arrived}) == 1
    assert len(office.receiver.arrived) == 3 and sent(office, bound)[0].state == "delivered"


def test_a_redirect_is_not_followed(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.receiver.answers = [307]
    office.round()
    assert sent(office, bound)[0].last_fault == "The target redirects (307), which is not followed."
    assert len(office.receiver.arrived) == 1


def test_hanging_webhook_does_not_delay_other_deliveries(office: Office) -> None:
    _, bound = bind(office)
    _, to = boss(office)
    alarm(office.world, 6)
    office.receiver.hang.set()
    began = time.monotonic()
    office.round()
    office.round()
    assert time.monotonic() - began < 4 and len(office.server.to(to)) >= 4
    assert {item.state for item in sent(office, bound)} == {"waiting"}


def test_webhook_answering_410_is_not_retried(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.receiver.answers = [410]
    office.round()
    assert sent(office, bound)[0].state == "given_up"


def test_inner_webhook_address_needs_the_operators_setting(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.round(parts=without_networks(office))
    assert "lies inside a network" in sent(office, bound)[0].last_fault and not office.receiver.arrived


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("100.100.100.200", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
    ],
)
def test_only_public_addresses_are_permitted(office: Office, address: str, *, public: bool) -> None:
    settings = without_networks(office).settings
    assert outward.permitted(settings, ip_address(address)) is public


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "[fec0::1]", "localhost", "0"]
)
def test_inner_addresses_are_refused_in_every_spelling(office: Office, host: str) -> None:
    url = f"https://{host}:{office.receiver.port}/"
    with pytest.raises(NotSent):
        outward.post(without_networks(office).settings, url, b"{}", {})
    assert not office.receiver.arrived
    if host != "localhost":
        with pytest.raises(Invalid, match="inside a network"):
            bind(office, url)
    # What the operator names may be bound, and a name is judged when it is used.
    for may in ("https://127.1/", f"https://{'a' * 64}.example/"):
        assert not outward.is_inner_address(office.parts.settings, may)


def test_webhook_host_is_resolved_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    real = socket.getaddrinfo

    def watched(host: Any, *given: Any, **more: Any) -> Any:
        asked.append(host)
        return real(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    assert outward.post(office.parts.settings, office.receiver.url, b"{}", {}) == 200
    assert [host for host in asked if host == "localhost"] == ["localhost"]


def test_http_webhook_needs_the_operators_setting(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(NotSent, match="inside"):
            outward.post(without_networks(office).settings, url, b"{}", {})
        with pytest.raises(Invalid):
            bind(office, url)
        # Public, but in the clear.
        with pytest.raises(NotSent, match="no TLS"):
            outward.post(office.parts.settings, "http://8.8.8.8/", b"{}", {})


def test_untrusted_webhook_certificate_is_refused(office: Office) -> None:
    settings = office.parts.settings.model_copy(update={"notice_ca_file": None})
    with pytest.raises(NotSent, match="not trusted"):
        outward.post(settings, office.receiver.url, b"{}", {})
    assert not office.receiver.arrived


@pytest.mark.parametrize(
    "target",
    [
        "",
        "ftp://example.org/",
        "file:///etc/passwd",
        "gopher://example.org",
        "https://",
        "https://user:word@example.org/",
        "https://example.org/#part",
        "https://example.org/a b",
        "https://example.org/\r\nHost: inner",
        "https://exämple.org/",
        "https://example.org:99999/",
        "https://example.org\\@inner/",
        "https://" + "a" * 600,
    ],
)
def test_malformed_target_is_refused(office: Office, target: str) -> None:
    with pytest.raises(Invalid):
        bind(office, target or " ")


def test_target_and_secret_are_stored_encrypted(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world)
    office.receiver.answers = [500]
    office.round()
    with office.world.admin("guestkey") as connection:
        dumped = ""
        for table in ("notice_channel", "delivery", "notice", "event", "event_personal"):
            rows = connection.execute(f"SELECT row_to_json(t)::text FROM guestkey.{table} t").fetchall()
            dumped += "".join(str(row[0]) for row in rows)
    assert bound.channel.shown == f"https://localhost:{office.receiver.port}/…"
    assert not [canary for canary in ("path-canary", "query-canary", bound.secret) if canary in dumped]


def test_removed_channel_gets_no_messages_and_keeps_no_secret(office: Office) -> None:
    admin, bound = bind(office)
    alarm(office.world)
    with office.world.database.transaction() as tx:
        channels.test(office.parts, tx, admin.caller, bound.channel.id, clock(tx))
        channels.remove(tx, admin.caller, bound.channel.id, clock(tx))
        channels.remove(tx, admin.caller, bound.channel.id, clock(tx))
        with pytest.raises(Conflict):
            channels.test(office.parts, tx, admin.caller, bound.channel.id, clock(tx))
    office.rounds()
    assert not office.receiver.arrived
    with office.world.database.transaction() as tx:
        assert tx.get_one(NoticeChannel, bound.channel.id).wrapped == ""
    assert office.world.events(bound.channel.id) == ["channel.bound", "channel.tested", "channel.removed"]


def test_only_admins_change_channels(office: Office) -> None:
    world = office.world
    _, bound = bind(office)
    auditor, guest = world.person(roles=("auditor",)), world.person(world.vendor(), roles=("lead",))
    new = NewChannel("webhook", "Mine", office.receiver.url, ["emergency"])
    for who in (auditor, guest, world.person()):
        with pytest.raises(Forbidden):
            channels.bind(world.parts, who.caller, new)
        with world.database.transaction() as tx, pytest.raises(Forbidden):
            channels.remove(tx, who.caller, bound.channel.id, clock(tx))
    with world.database.transaction() as tx:
        assert channels.list_channels(tx, auditor.caller)
        with pytest.raises(Forbidden):
            channels.deliveries(tx, guest.caller, Window())
        with pytest.raises(NotFound):
            channels.CHANNELS.one(tx, auditor.caller, new_id("ch"))


DISCORD = "discord://417421629812345678/JHMHI8qBe7bk2ZwO5U711o3dV_js"


@pytest.mark.parametrize(
    "target",
    [
        "json://127.0.0.1/",
        "mailto://user:pass@inner",
        "mmost://inner/abc",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        f"{DISCORD}?verify=no",
        "discord://",
        "slack://x",
        "DISCORD://a/b",
        "discord",
    ],
)
def test_only_chat_services_with_fixed_hosts_are_accepted(office: Office, target: str) -> None:
    with pytest.raises(Invalid):
        bind(office, target, kind="chat")


def test_chat_message_is_sent_through_apprise(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.discord import NotifyDiscord

    # The service itself is out of reach of a test; its host is the one thing replaced.
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"https://localhost:{office.receiver.port}")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(office.receiver.ca_file))
    _, bound = bind(office, DISCORD, kind="chat")
    assert bound.secret == "" and bound.channel.shown == "discord://…"
    alarm(office.world)
    office.rounds()
    [(_, body)] = office.receiver.arrived
    assert b"Guestkey was reopened" in body and b"/installation" in body
    assert sent(office, bound)[0].state == "delivered"
    office.receiver.answers = [500] * 3
    alarm(office.world)
    office.round()
    assert sent(office, bound)[1].last_fault == "The chat service did not take it."


def test_failing_chat_plugin_is_retried_and_given_up(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.discord import NotifyDiscord

    def breaks(*_: object, **__: object) -> bool:
        raise KeyError("target-canary")

    monkeypatch.setattr(NotifyDiscord, "send", breaks)
    _, bound = bind(office, DISCORD, kind="chat")
    alarm(office.world)
    office.round()
    [delivery] = sent(office, bound)
    fault = "It could not be sent (KeyError)."
    assert (delivery.state, delivery.attempts, delivery.last_fault) == ("waiting", 1, fault)
    office.round(minutes=24 * 60 + 5)
    assert sent(office, bound)[0].state == "given_up"
    assert office.world.events(bound.channel.id) == ["channel.bound", "notice.given_up"]


def test_every_supported_chat_service_loads() -> None:
    for name in channels.SERVICES:
        assert channels.chat_fault(f"{name}://") == "This service does not take such an address."


def test_channel_messages_are_limited_and_emergencies_sent_first(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MESSAGES_AN_HOUR", 5)
    world = office.world
    _, guest, dataset = scene(world)
    _, bound = bind(office, topics=["to_decide", "emergency"])
    request = asks(world, guest, dataset)
    with world.database.transaction() as tx:
        for _ in range(7):
            audit.record(tx, "request.made", actor="system", subject=request.id, now=clock(tx))
    alarm(world)
    outbox.deliver_outbox(office.parts, most=1)
    assert [item.kind for item in sent(office, bound)] == ["installation.opened"]
    outbox.deliver_outbox(office.parts)
    alarm(world)
    office.round()
    kinds = [json.loads(body)["type"] for _, body in office.receiver.arrived]
    assert len(kinds) == delivery_retries.HANDS and kinds.count("installation.opened") == 2
    office.rounds()
    office.round(minutes=11)
    said = sent(office, bound)
    assert [item.kind for item in said].count("request.made") == 5
    assert [item.title for item in said if item.kind == digests.LEFT_OUT] == ["3 messages were not sent"]
    assert {item.state for item in said} == {"delivered"}
    with world.database.transaction() as tx:
        audit.record(tx, "request.made", actor="system", subject=request.id, now=clock(tx))
    office.rounds()
    assert sent(office, bound)[-1].title == "1 message was not sent"


def test_given_up_channel_deliveries_record_one_event(office: Office) -> None:
    _, bound = bind(office)
    alarm(office.world, 5)
    office.receiver.answers = [500] * 20
    office.round()
    office.round(minutes=timedelta(days=1, minutes=10).total_seconds() / 60)
    assert {item.state for item in sent(office, bound)} == {"given_up"}
    assert office.world.events(bound.channel.id) == ["channel.bound", "notice.given_up"]
