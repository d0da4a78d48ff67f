"""Promise 5: a one-time code works once, in any spelling, from any replica."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pyotp
import pytest

from broker.base.errors import Conflict, Invalid, TooMany
from broker.identity import caller, totp
from broker.models import Person, TotpFactor
from broker.runtime.parts import Parts
from tests.support.world import Signed, World


def with_app(world: World) -> tuple[Signed, str]:
    """A person in a browser with an authenticator app in force, and its secret."""
    signed = world.person(world.vendor(), factor_age=None)
    cookie = world.session(signed)
    with world.database.transaction() as tx:
        signed = replace(signed, caller=caller.by_session(tx, cookie, "127.0.0.1", idle=600).caller)
    later = world.now() + timedelta(minutes=5)
    begun = totp.begin(world.parts, signed.caller, later)
    codes = totp.confirm_enrolment(world.parts, signed.caller, later, pyotp.TOTP(begun.secret).now())
    assert len(codes) == 10
    # The enrolling code used up its step: as if it had been enrolled a while ago.
    world.change_factor(signed.id, last_step=0)
    return signed, begun.secret


def spellings(code: str) -> list[str]:
    wide = "".join(chr(ord(digit) - ord("0") + 0xFF10) for digit in code)
    return [code, f" {code} ", f"{code[:3]} {code[3:]}", f"{code[:3]}-{code[3:]}", wide, f"\t{code}\n", f"\u2003{code}"]


@pytest.mark.parametrize("first", range(7))
def test_code_works_once_in_any_spelling(world: World, first: int) -> None:
    signed, secret = with_app(world)
    written = spellings(pyotp.TOTP(secret).at(world.now()))
    totp.prove(world.parts, signed.caller, written[first])
    for other in written[:4]:
        with pytest.raises(Invalid):
            totp.prove(world.parts, signed.caller, other)


def test_code_works_once_at_two_replicas(world: World) -> None:
    signed, secret = with_app(world)
    replicas = [Parts.build(world.settings, identity="issuer") for _ in range(2)]
    code = pyotp.TOTP(secret).at(world.now())
    barrier = threading.Barrier(4)

    def attempt(number: int) -> bool:
        barrier.wait()
        try:
            totp.prove(replicas[number % 2], signed.caller, code)
        except Invalid:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, range(4)))
    for replica in replicas:
        replica.close()
    assert sum(outcomes) == 1


def test_an_older_code_than_the_last_one_used_is_refused(world: World) -> None:
    signed, secret = with_app(world)
    now = world.now()
    totp.prove(world.parts, signed.caller, pyotp.TOTP(secret).at(now))
    with pytest.raises(Invalid):
        totp.prove(world.parts, signed.caller, pyotp.TOTP(secret).at(now - timedelta(seconds=30)))


@pytest.mark.fast
def test_locked_factor_refuses_the_correct_code(world: World) -> None:
    signed, secret = with_app(world)
    for _ in range(world.settings.factor_max_failures):
        with pytest.raises(Invalid):
            totp.prove(world.parts, signed.caller, "000000x")
    with pytest.raises(TooMany) as locked:
        totp.prove(world.parts, signed.caller, pyotp.TOTP(secret).at(world.now()))
    assert 0 < locked.value.retry_after <= world.settings.factor_lockout + 1
    assert world.events(signed.id).count("factor.locked_out") == 1
    world.change(Person, signed.id, locked_until=world.now())
    totp.prove(world.parts, signed.caller, pyotp.TOTP(secret).at(world.now()))


def test_totp_secret_is_encrypted_for_its_person(world: World) -> None:
    signed, secret = with_app(world)
    other, _ = with_app(world)
    with world.database.transaction() as tx:
        mine, theirs = tx.get_one(TotpFactor, signed.id), tx.get_one(TotpFactor, other.id)
        assert secret not in mine.wrapped_secret
        theirs.wrapped_secret = mine.wrapped_secret
    with pytest.raises(Conflict, match="can no longer be checked"):
        totp.prove(world.parts, other.caller, pyotp.TOTP(secret).at(world.now()))
