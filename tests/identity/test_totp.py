"""One-time codes: once, in any spelling, from any thread; counted, locked out, wrapped for one person."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from broker.models import Event, Person, RecoveryCode, TotpFactor
from tests.identity.conftest import Ada, BrowserOf, Door
from tests.support.world import World


def _spellings(code: str) -> list[str]:
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in code)
    return [
        f"{code[:3]} {code[3:]}",
        f"\t{code}\r\n",
        "\u00a0".join(code),
        f"{code[:3]}-{code[3:]}",
        f"{code[:3]}\u2009{code[3:]}",
        wide,
        f"{wide[:3]}{code[3:]}",
    ]


def test_a_code_works_once_in_any_spelling(ada: Ada) -> None:
    for way in range(len(_spellings("123456"))):
        ada.forget()
        code = ada.code()
        spelled = _spellings(code)[way]
        assert ada.prove(spelled) == 200
        assert ada.prove(code) == 422
        ada.forget_failures()
        assert ada.prove(spelled) == 422


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "12345\x00", "1e5000", "+12345"])
def test_malformed_code_is_refused(ada: Ada, code: str) -> None:
    assert ada.browser.api("POST", "/confirm/totp", {"code": code}).status_code == 422


@pytest.mark.parametrize(("steps", "status"), [(-2, 422), (-1, 200), (0, 200), (1, 200), (3, 422)])
def test_code_is_accepted_within_its_time_window(ada: Ada, steps: int, status: int) -> None:
    if time.time() % 30 > 27:
        time.sleep(3)
    assert ada.prove(ada.code(steps)) == status


def test_earlier_code_is_refused_after_a_later_one(ada: Ada) -> None:
    earlier = ada.code()
    assert ada.prove(ada.code(1)) == 200
    assert ada.prove(earlier) == 422


def test_concurrent_use_of_a_code_succeeds_once(ada: Ada) -> None:
    clients = [ada.token() for _ in range(6)]
    code, barrier, statuses = ada.code(), threading.Barrier(6), []

    def run(number: int) -> None:
        barrier.wait(5)
        statuses.append(ada.prove(code, clients[number]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses.count(200) == 1 and set(statuses) <= {200, 422, 429}


def test_freshness_belongs_to_the_session(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    other, token = browser_of(), ada.token()
    assert door.sign_in(other, ada.source) == 303
    assert ada.browser.api("GET", "/me").json()["factor_at"] is not None
    for holder in (other, token):
        me = holder.api("GET", "/me").json()
        assert me["factor_enrolled"] and me["factor_at"] is None
    assert ada.prove(browser=token) == 200
    assert token.api("GET", "/me").json()["factor_method"] == "totp"
    assert other.api("GET", "/me").json()["factor_at"] is None


def test_wrong_codes_lock_the_person_on_all_sessions(ada: Ada, world: World) -> None:
    token = ada.token()
    for attempt in range(5):
        assert ada.prove(ada.wrong_code(), token if attempt % 2 else ada.browser) == 422
    for holder in (ada.browser, token):
        answer = holder.api("POST", "/confirm/totp", {"code": ada.code()})
        assert answer.status_code == 429 and 0 < int(answer.headers["retry-after"]) <= 901
    assert ada.browser.api("POST", "/factors/recover", {"code": ada.recovery_codes[0]}).status_code == 429
    world.change(Person, ada.id, locked_until=world.now() - timedelta(seconds=1))
    assert ada.prove() == 200
    assert "factor.locked_out" in world.events(ada.id)


def test_concurrent_wrong_codes_are_each_counted(ada: Ada, world: World) -> None:
    clients = [ada.token() for _ in range(8)]
    wrong, statuses = ada.wrong_code(), []
    threads = [
        threading.Thread(target=lambda client=client: statuses.append(ada.prove(wrong, client))) for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses.count(422) == 5 and statuses.count(429) == 3


def test_correct_code_resets_the_failure_count(ada: Ada) -> None:
    for _ in range(3):
        for _ in range(4):
            assert ada.prove(ada.wrong_code()) == 422
        with ada.door.world.database.transaction() as tx:
            tx.execute(update(TotpFactor).where(TotpFactor.person_id == ada.id).values(last_step=0))
        assert ada.prove() == 200


def test_totp_secret_is_encrypted_for_its_person(ada: Ada, door: Door, browser_of: BrowserOf, world: World) -> None:
    eve = Ada(door, browser_of(), ada.source, "eve")
    eve.enrol()
    with world.database.transaction() as tx:
        wrapped = tx.get_one(TotpFactor, eve.id).wrapped_secret
        assert wrapped.startswith("vault:") and eve.secret not in wrapped
        tx.execute(update(TotpFactor).where(TotpFactor.person_id == ada.id).values(wrapped_secret=wrapped))
    assert ada.prove(eve.code()) == 409
    with world.database.transaction() as tx:
        leaves = b"".join(tx.scalars(select(Event.leaf).where(Event.actor == f"person:{eve.id}")))
    for secret in (eve.secret, *eve.recovery_codes):
        assert secret.encode() not in leaves


def test_first_factor_needs_an_invitation_or_window(door: Door, browser_of: BrowserOf) -> None:
    source = door.bind()
    browser = browser_of()
    person_id = door.join(browser, source)
    later = browser_of()
    assert door.sign_in(later, source) == 303
    for way in ("/factors/totp", "/factors/passkeys/options"):
        refused = later.api("POST", way)
        assert (refused.status_code, refused.json()["code"]) == (403, "enrolment_closed")
    made = door.admin().api("POST", f"/people/{person_id}/enrolment-invitations").json()
    assert (
        later.return_to(door.provider.approve(later.leave(f"{made['link']}/sign-in"))).headers["location"]
        == "/security"
    )
    assert later.api("POST", "/factors/totp").status_code == 200


def test_enrolment_link_works_once_for_one_person(door: Door, browser_of: BrowserOf) -> None:
    source = door.bind()
    person_id = door.join(browser_of(), source)
    door.join(browser_of(), source, "eve")
    link = door.admin().api("POST", f"/people/{person_id}/enrolment-invitations").json()["link"]
    eve = browser_of()
    answer = eve.get(door.provider.approve(eve.leave(f"{link}/sign-in"), "eve"))
    assert (answer.status_code, answer.json()["code"]) == (401, "link_foreign")
    for expected in (200, 403):
        browser = browser_of()
        assert browser.return_to(door.provider.approve(browser.leave(f"{link}/sign-in"))).status_code == 303
        assert browser.api("POST", "/factors/totp").status_code == expected


def test_no_enrolment_link_for_a_person_with_a_factor(ada: Ada, door: Door) -> None:
    assert door.admin().api("POST", f"/people/{ada.id}/enrolment-invitations").status_code == 409


def test_replacing_the_app_needs_an_existing_factor(ada: Ada) -> None:
    old, old_code = ada.secret, ada.code(1)
    ada.enrol(ada.code())
    assert ada.secret != old
    assert ada.prove(old_code) == 422
    assert ada.prove() == 200


def test_new_totp_secret_works_only_after_confirmation_in_its_session(
    ada: Ada, door: Door, browser_of: BrowserOf
) -> None:
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    new = ada.browser.api("POST", "/factors/totp", {"code": ada.code()}).json()["secret"]
    kept, ada.secret = ada.secret, new
    assert other.api("POST", "/factors/totp/confirm", {"code": ada.code()}).status_code == 409
    ada.secret = kept
    assert ada.prove(ada.code(1), browser=other) == 200
    assert other.api("POST", "/factors/totp/confirm", {"code": ada.code()}).status_code == 409


def test_last_factor_cannot_be_removed(ada: Ada) -> None:
    refused = ada.browser.api("POST", "/factors/totp/remove", {"code": ada.code()})
    assert (refused.status_code, refused.json()["code"]) == (409, "last_factor")


def test_recovery_code_only_permits_enrolment(ada: Ada, door: Door, browser_of: BrowserOf, world: World) -> None:
    browser, token = browser_of(), ada.token()
    assert door.sign_in(browser, ada.source) == 303
    spelled = ada.recovery_codes[0].upper().replace("-", " ")
    assert browser.api("POST", "/factors/recover", {"code": spelled}).status_code == 200
    assert browser.api("GET", "/me").json()["factor_at"] is None
    assert browser.api("POST", "/factors/totp/remove", {}).status_code == 401
    assert ada.browser.api("GET", "/me").status_code == 401 and token.api("GET", "/me").status_code == 401
    ada.browser = browser
    ada.enrol()
    assert ada.prove() == 200
    assert browser.api("GET", "/factors").json()["recovery_codes_left"] == 10
    with world.database.transaction() as tx:
        rows = list(tx.scalars(select(RecoveryCode).where(RecoveryCode.person_id == ada.id)))
    assert len(rows) == 10


def test_a_recovery_code_works_once(ada: Ada, door: Door, browser_of: BrowserOf) -> None:
    code = ada.recovery_codes[3]
    assert ada.browser.api("POST", "/factors/recover", {"code": code}).status_code == 200
    other = browser_of()
    assert door.sign_in(other, ada.source) == 303
    assert other.api("POST", "/factors/recover", {"code": code}).status_code == 422
    assert other.api("POST", "/factors/recover", {"code": "aaaaa-bbbbb-ccccc-ddddd"}).status_code == 422


def test_recovery_needs_a_browser_session(ada: Ada) -> None:
    assert ada.token().api("POST", "/factors/recover", {"code": ada.recovery_codes[0]}).status_code == 403
