"""Confirming a command line in Chromium: with a passkey, from another address, without scripts, and disowned."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from broker.base.ids import new_id
from broker.identity import caller, terminal_confirmation
from broker.models import ApiToken
from tests.portal.conftest import GuestOf
from tests.portal.house import House, Someone


def asking(house: House, someone: Someone, address: str) -> str:
    """A command line of somebody's that asks from an address; the page to answer it on."""
    token, now = "gka_" + secrets.token_urlsafe(32), house.world.now()
    house.world.add(
        ApiToken(
            id=new_id("at"),
            token_hash=hashlib.sha256(token.encode()).digest(),
            person_id=someone.id,
            source_id=someone.source.id,
            client_id="guestkey-cli",
            last_seen_at=now,
            expires_at=now + timedelta(hours=8),
        )
    )
    with house.world.database.transaction() as tx:
        return (
            "/confirm/command-line/"
            + terminal_confirmation.request_confirmation(tx, caller.by_token(tx, token, address).caller, now).id
        )


def test_command_line_is_confirmed_or_signed_out_in_the_browser(house: House, guest_of: GuestOf) -> None:
    ada = house.someone("Ada Engineer", house.vendor()[1])
    secret = house.app(ada)
    guest = guest_of(ada, factor_age=30)
    guest.secret = secret
    guest.add_authenticator()
    guest.open("/security")
    guest.press("Add passkey")
    guest.says("To change your second factors, confirm with one of them.")
    guest.fill("Code from your authenticator app", guest.code())
    guest.press("Confirm and add passkey")
    guest.fill("Name of this passkey", "Laptop")
    guest.press("Create passkey")
    guest.open(asking(house, ada, "127.0.0.1"))
    guest.says("the same as this browser")
    guest.look("confirm-command-line")
    with guest.page.expect_navigation():
        guest.page.get_by_role("button", name="Confirm with a passkey and continue in the terminal").click()
    guest.says("Your second factor is confirmed there")
    guest.look("confirm-command-line-done")
    guest.page.go_back()
    guest.says("nothing to confirm")
    guest.look("confirm-command-line-gone")
    guest.open(asking(house, ada, "198.51.100.7"))
    guest.says("not the address of this browser")
    guest.fill("Code from your authenticator app", "000 000")
    guest.press("Confirm and continue in the terminal")
    guest.says("The code is not correct")
    guest.look("confirm-command-line-wrong-code")
    guest.press("This was not me: sign out that command line")
    guest.says("That command line is signed out")
    guest.look("confirm-command-line-disowned")


def test_confirmation_without_scripts_returns_after_sign_in(house: House, guest_of: GuestOf) -> None:
    ada = house.someone("Ada Engineer", house.vendor()[1])
    house.app(ada)
    path = asking(house, ada, "127.0.0.1")
    plain = guest_of(ada, scripts=False)
    plain.open(path)
    plain.says("Does it show this code?")
    stranger = guest_of(ada, signed_in=False)
    stranger.open(path)
    assert f"next={path}" in stranger.page.url.replace("%2F", "/")
