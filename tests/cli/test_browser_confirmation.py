"""Confirming a command line with a passkey in the browser: the real program, the real page, and everything forged."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import requests
from sqlalchemy import func, select, update

from broker.base.errors import Conflict, NotFound
from broker.identity import sessions, terminal_confirmation
from broker.identity.caller import by_session, by_token
from broker.identity.http import SESSION_COOKIE
from broker.models import ApiToken, Event, FactorChallenge, Person
from examples.demo.browser import Browser
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import Terminal
from tests.support.authenticator import Authenticator
from tests.support.world import Signed, World
from tests.web.conftest import Replica

ADDRESS = re.compile(r"http\S+(/confirm/command-line/fc_\w+)")
CODE = re.compile(r"\b[B-Z]{4}-[B-Z]{4}\b")


class Desk:
    """Somebody with a passkey and nothing else: their browser, their terminal, and the program waiting in it."""

    def __init__(self, world: World, replica: Replica, terminal_of: TerminalOf) -> None:
        self.world, vendor = world, world.vendor()
        self.signed, self.dataset = world.person(vendor, factor_age=None), world.dataset(vendor)
        world.grant(self.dataset, self.signed)
        self.terminal: Terminal = terminal_of(self.signed)
        self.browser = self.browser_of(self.signed, replica)
        self.key = Authenticator(replica.url)
        options = self.browser.api("POST", "/factors/passkeys/options")
        self.browser.api("POST", "/factors/passkeys", {"credential": self.key.make(options), "name": "Laptop"})
        # Adding a factor signed the terminal out; it is signed in again.
        world.change(ApiToken, self.signed.caller.holder_id, ended_at=None, end_cause=None)
        self.running: list[subprocess.Popen[str]] = []

    def browser_of(self, signed: Signed, replica: Replica) -> Browser:
        """A browser in which somebody is signed in and may add a first factor."""
        made = Browser(replica.url)
        with self.world.database.transaction() as tx:
            person, now = tx.get_one(Person, signed.id), self.world.now()
            until = now + timedelta(minutes=5)
            made.cookies[SESSION_COOKIE] = sessions.start(
                tx, person, source_id=person.source_id, lifetime=3600, now=now, enrolment_until=until, address="x"
            )
        return made

    def begin(self, *words: str) -> tuple[subprocess.Popen[str], str, str]:
        """Start a command that waits for the browser; returns it, the page's path and the code it printed."""
        running = self.terminal.start(*(words or ("confirm", "--browser")))
        self.running.append(running)
        assert running.stderr is not None
        path = ""
        for line in running.stderr:
            path = found[1] if (found := ADDRESS.search(line)) else path
            if code := CODE.search(line):
                return running, path, code[0]
        raise AssertionError("no code was printed")

    def prove(self, page: requests.Response) -> requests.Response:
        """Press the page's button with the passkey."""
        found = re.search(r'data-options="([^"]+)"', page.text)
        assert found, page.text
        answer = self.key.prove(json.loads(html.unescape(found[1])))
        return self.browser.submit(page, passkey=json.dumps(answer))

    def ask(self) -> str:
        """Let the command line ask, without the program; returns the id."""
        with self.world.database.transaction() as tx:
            caller = by_token(tx, self.signed.token, "127.0.0.1").caller
            return terminal_confirmation.request_confirmation(tx, caller, self.world.now()).id

    def factor_at(self) -> Any:
        with self.world.database.transaction() as tx:
            return tx.get_one(ApiToken, self.signed.caller.holder_id).factor_at


@pytest.fixture
def desk(world: World, replica: Replica, terminal_of: TerminalOf) -> Iterator[Desk]:
    made = Desk(world, replica, terminal_of)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def test_passkey_in_the_browser_confirms_the_command_line(desk: Desk) -> None:
    slug = desk.dataset.slug
    refused = desk.terminal.run("get", slug, "--kind", "postgres")
    assert (refused.code, refused.err.splitlines()[-1]) == (5, "Next: guestkey confirm")
    assert "guestkey confirm --browser" in desk.terminal.run("confirm").err
    running, path, code = desk.begin()
    page = desk.browser.open(path)
    assert (page.status_code, code in page.text, "the same as this browser" in page.text) == (200, True, True)
    done = desk.prove(page)
    assert "Go back to the terminal" in done.text
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out, "Confirmed." in err) == (0, "", True), err
    assert desk.terminal.run("get", slug, "--kind", "postgres", "--field", "username").code == 0
    assert desk.world.events(desk.signed.id)[-1] == "factor.proven_elsewhere"
    assert desk.browser.open(path).status_code == 404, "good once"


def test_command_continues_after_confirmation_in_the_browser(desk: Desk) -> None:
    seen: list[str] = []

    def answer(screen: str) -> None:
        if not seen and CODE.search(screen) and (found := ADDRESS.search(screen)):
            seen.append(found[1])
            desk.prove(desk.browser.open(found[1]))

    words = ("get", desk.dataset.slug, "--kind", "postgres", "--field", "username")
    ran = desk.terminal.type(*words, watch=answer, seconds=40)
    assert (ran.code, "Confirm your second factor in the browser" in ran.out) == (0, True), ran.out
    assert re.search(r"gk_[a-z0-9]{6}_l", ran.out)


def test_person_who_did_not_ask_can_sign_out_the_command_line(desk: Desk) -> None:
    running, path, _ = desk.begin("confirm", "--browser", "--json")
    page = desk.browser.open(path)
    token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert token
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    address = f"{desk.browser.portal}{path}/disown"
    assert desk.browser._send("POST", address, data="csrf_token=forged", headers=headers).status_code == 403
    told = desk.browser._send("POST", address, data=f"csrf_token={token[1]}", headers=headers)
    assert told.status_code == 303
    assert "signed out" in desk.browser.open(told.headers["Location"]).text
    _, err = running.communicate(timeout=20)
    assert (running.returncode, "signed out in the browser" in err) == (4, True), err
    assert desk.terminal.run("whoami").code == 4


def test_browser_confirmation_times_out(desk: Desk) -> None:
    running, path, _ = desk.begin()
    with desk.world.database.transaction() as tx:
        gone = desk.world.now() - timedelta(seconds=1)
        tx.execute(update(FactorChallenge).where(FactorChallenge.id == path.split("/")[-1]).values(expires_at=gone))
    assert desk.browser.open(path).status_code == 404
    _, err = running.communicate(timeout=20)
    assert (running.returncode, "in time" in err) == (5, True), err
    assert desk.factor_at() is None


def test_confirmation_of_another_person_is_not_found(desk: Desk, replica: Replica) -> None:
    waiting = desk.ask()
    for mate in (desk.world.person(desk.world.vendor()), desk.world.person(roles=("admin",))):
        theirs = desk.browser_of(mate, replica)
        pages = [theirs.open(f"/confirm/command-line/{id_}") for id_ in (waiting, "fc_01" + "0" * 24, "x", "%00")]
        assert {page.status_code for page in pages} == {404}
        varying = r"rq_\w+|command-line/[^\"&]*|data-now=\"[^\"]*\""
        assert len({re.sub(varying, "", page.text) for page in pages[:2]}) == 1
    with desk.world.database.transaction() as tx:
        assert tx.get(FactorChallenge, waiting) is not None, "and nobody used it up"


def test_only_a_later_proof_confirms_and_a_new_request_replaces_the_old(desk: Desk) -> None:
    earlier = desk.ask()
    waiting = desk.ask()
    assert desk.browser.open(f"/confirm/command-line/{earlier}").status_code == 404
    with pytest.raises(Conflict, match="before this was requested"), desk.world.database.transaction() as tx:
        caller = by_session(tx, desk.browser.cookies[SESSION_COOKIE], None, idle=600).caller
        terminal_confirmation.confirm(tx, caller, waiting, desk.world.now())
    page = desk.browser.open(f"/confirm/command-line/{waiting}")
    again = desk.browser.submit(page)
    assert (again.status_code, desk.factor_at()) == (401, None), "without a factor nothing counts"
    forged = desk.browser.submit(page, passkey='{"id": "x"}', code="000000")
    assert (forged.status_code, desk.factor_at()) == (422, None)


def test_concurrent_confirmations_count_once(desk: Desk) -> None:
    page = desk.browser.open(f"/confirm/command-line/{desk.ask()}")
    desk.prove(page)
    waiting, now = desk.ask(), desk.world.now()
    with desk.world.database.transaction() as tx:
        caller = by_session(tx, desk.browser.cookies[SESSION_COOKIE], None, idle=600).caller
    fresh = replace(caller, factor_at=now + timedelta(seconds=1))

    def confirm(_: int) -> str:
        try:
            with desk.world.database.transaction() as tx:
                terminal_confirmation.confirm(tx, fresh, waiting, now)
        except NotFound:
            return "nothing"
        return "confirmed"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(confirm, range(4))) == ["confirmed"] + ["nothing"] * 3
    with desk.world.database.transaction() as tx:
        told = select(func.count()).where(Event.subject == desk.signed.id, Event.kind == "factor.proven_elsewhere")
        assert tx.scalars(told).one() == 2


def test_expired_confirmation_does_not_use_up_the_code(desk: Desk) -> None:
    page = desk.browser.open(f"/confirm/command-line/{desk.ask()}")
    desk.ask()
    before = desk.browser.api("GET", "/me")["factor_at"]
    assert desk.prove(page).status_code == 404
    assert (desk.browser.api("GET", "/me")["factor_at"], desk.factor_at()) == (before, None)


def test_only_command_lines_of_people_can_be_confirmed_in_the_browser(desk: Desk, world: World) -> None:
    assert desk.browser.api("POST", "/confirm/browser")["code"] == "forbidden"
    service = world.service(world.vendor())
    answer = requests.post(f"{desk.browser.portal}/api/v1/confirm/browser", headers=service.headers, timeout=10)
    assert answer.status_code == 403
    bare = world.person(factor_age=None)
    answer = requests.post(f"{desk.browser.portal}/api/v1/confirm/browser", headers=bare.headers, timeout=10)
    assert (answer.status_code, answer.json()["enrolled"]) == (401, False)
