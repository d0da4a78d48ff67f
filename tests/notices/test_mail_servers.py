"""Mail servers: each way to speak to one, and whatever one does instead of taking a mail."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from broker.models import Event
from broker.notices import delivery_retries
from tests.notices.conftest import MailServer, Office
from tests.notices.test_mail import alarm, boss


def test_refused_mail_is_retried_and_given_up_after_a_day(office: Office) -> None:
    signed, to = boss(office)
    alarm(office.world)
    office.server.answer = "451 not now"
    assert office.round() == 1
    [delivery] = office.deliveries(signed)
    assert (delivery.state, delivery.attempts) == ("waiting", 1) and "451" in delivery.last_fault
    assert office.round() == 0, "not at once"
    assert office.round(minutes=1) == 1
    office.server.answer = ""
    assert office.round(minutes=3) == 1
    assert len(office.server.to(to)) == 1 and office.deliveries(signed)[0].state == "delivered"
    alarm(office.world)
    office.server.answer = "451 not now"
    office.round()
    office.round(minutes=24 * 60 + 5)
    assert office.deliveries(signed)[1].state == "given_up"
    with office.world.database.transaction() as tx:
        given_up = tx.scalars(select(Event.id).where(Event.subject == office.deliveries(signed)[1].id)).all()
    assert len(given_up) == 1


def test_permanently_refused_address_is_not_retried(office: Office) -> None:
    signed, _ = boss(office)
    alarm(office.world)
    office.server.answer = "550 no such mailbox"
    office.rounds()
    [delivery] = office.deliveries(signed)
    assert delivery.state == "given_up" and delivery.attempts == 0


def test_hanging_mail_server_costs_one_time_limit(office: Office) -> None:
    signed, _ = boss(office)
    alarm(office.world, 8)
    with socket.create_server(("localhost", 0)) as silent:
        changes: dict[str, Any] = {"smtp_port": silent.getsockname()[1], "smtp_timeout": 0.5}
        parts = replace(office.parts, settings=office.parts.settings.model_copy(update=changes))
        began = time.monotonic()
        assert office.round(parts=parts) == delivery_retries.HANDS
        assert office.round(parts=parts) == 0, "the others would meet the same silence"
        assert time.monotonic() - began < 4
    assert {item.state for item in office.deliveries(signed)} == {"waiting"}
    assert office.round(minutes=10) > 0 and office.round(minutes=10) > 0
    assert {item.state for item in office.deliveries(signed)} == {"delivered"}


def test_untrusted_mail_server_gets_no_mail(office: Office) -> None:
    signed, to = boss(office)
    alarm(office.world)
    trusting_nobody = office.parts.settings.model_copy(update={"smtp_ca_file": None})
    office.round(parts=replace(office.parts, settings=trusting_nobody))
    [delivery] = office.deliveries(signed)
    assert delivery.last_fault.startswith(
        "The mail server's certificate is not trusted: it is not signed by a trusted authority"
    )
    assert not office.server.to(to)


LOGIN = ("guestkey", "password-canary")


# The server of the tests warns of what only its implicit TLS makes safe.
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize(
    ("security", "wanted", "given", "fault"),
    [
        ("tls", None, None, ""),
        ("none", None, None, ""),
        ("tls", LOGIN, LOGIN, ""),
        ("starttls", LOGIN, LOGIN, ""),
        ("starttls", LOGIN, ("guestkey", "wrong-canary"), "The mail server answered 535 (SMTPAuthenticationError)."),
        ("tls", LOGIN, None, "The mail server answered 530 (SMTPSenderRefused)."),
    ],
)
def test_mail_is_sent_with_each_security_mode_and_login(
    office: Office,
    tmp_path: Path,
    security: str,
    wanted: tuple[str, str] | None,
    given: tuple[str, str] | None,
    fault: str,
) -> None:
    signed, to = boss(office)
    alarm(office.world)
    server = MailServer(tmp_path, security, wanted)
    changes = {
        "smtp_port": server.port,
        "smtp_ca_file": server.ca_file,
        "smtp_security": security,
        "smtp_username": given[0] if given else None,
        "smtp_password": SecretStr(given[1]) if given else None,
    }
    server.start()
    try:
        office.round(parts=replace(office.parts, settings=office.parts.settings.model_copy(update=changes)))
    finally:
        server.stop()
    [delivery] = office.deliveries(signed)
    assert (delivery.state, delivery.last_fault) == (("waiting", fault) if fault else ("delivered", ""))
    assert len(server.to(to)) == (not fault)
