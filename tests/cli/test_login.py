"""Signing the command line in through a browser, and the second factor at its prompt."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from sqlalchemy import func, select, update

from broker.identity import sessions
from broker.identity.http import SESSION_COOKIE
from broker.models import ApiToken, Person
from examples.demo.browser import Browser
from examples.demo.user import Authenticator
from tests.cli.terminal import CTRL_C, Answer, Ran, Terminal
from tests.support.world import Signed, World
from tests.web.conftest import Replica

CODE = "Code from your authenticator: "


class Sitting:
    """A person before browser and terminal; the browser is signed in, no second factor was proven in it."""

    def __init__(self, world: World, replica: Replica, signed: Signed, home: Path) -> None:
        self.world, self.signed = world, signed
        self.terminal = Terminal(home, replica.url, GUESTKEY_TIMEOUT="15")
        self.browser = Browser(replica.url)
        with world.database.transaction() as tx:
            person = tx.get_one(Person, signed.id)
            now = world.now()
            token = sessions.start(
                tx, person, source_id=person.source_id, lifetime=3600, now=now, enrolment_until=now.replace(year=2100)
            )
        self.browser.cookies[SESSION_COOKIE] = token
        self._processes: list[subprocess.Popen[str]] = []

    def begin(self, *more: str) -> tuple[subprocess.Popen[str], str]:
        """Start `guestkey login`; returns it and the address it printed."""
        login = self.terminal.start("login", "--no-browser", *more)
        self._processes.append(login)
        assert login.stderr is not None
        for line in login.stderr:
            if found := re.search(r"http\S+/oauth/authorize\?\S+", line):
                return login, found[0]
        raise AssertionError("no address was printed")

    def allow(self, address: str) -> str:
        """Say yes in the browser; returns where the page's link leads."""
        return self.browser.link(self.browser.submit(self.browser.open(address)), "hand-over")

    def sign_in(self) -> None:
        """All of it."""
        login, address = self.begin()
        assert requests.get(self.allow(address), timeout=5).status_code == 200
        assert finish(login).code == 0

    def enrol(self) -> Authenticator:
        """Add an authenticator in the browser, which signs the terminal out; it signs in again, its factor unproven."""
        authenticator = Authenticator(self.browser.api("POST", "/factors/totp")["secret"])
        self.browser.api("POST", "/factors/totp/confirm", {"code": authenticator.code()})
        assert self.terminal.run("whoami").code == 4
        self.sign_in()
        with self.world.database.transaction() as tx:
            mine = update(ApiToken).where(ApiToken.person_id == self.signed.id, ApiToken.ended_at.is_(None))
            tx.execute(mine.values(factor_at=None, factor_method=None))
        return authenticator

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


def finish(login: subprocess.Popen[str]) -> Ran:
    out, err = login.communicate(timeout=30)
    return Ran(login.returncode, out, err)


@pytest.fixture
def sitting(world: World, replica: Replica, tmp_path: Path) -> Iterator[Sitting]:
    vendor = world.vendor()
    dataset = world.dataset(vendor)
    signed = world.person(vendor, factor_age=None)
    world.grant(dataset, signed)
    made = Sitting(world, replica, signed, tmp_path)
    made.terminal.variables["DATASET"] = dataset.slug
    yield made
    made.close()


def test_login_use_and_logout(sitting: Sitting) -> None:
    login, address = sitting.begin()
    asked = parse_qs(urlsplit(address).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"][0].startswith("http://127.0.0.1:")
    landed = requests.get(sitting.allow(address), timeout=5)
    assert "Go back to the terminal" in landed.text
    done = finish(login)
    assert done.code == 0, done.err
    assert "no keyring is available here" in done.err
    file = sitting.terminal.home / ".local/share/guestkey/tokens.json"
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    token = next(iter(json.loads(file.read_text()).values()))
    assert token not in done.out + done.err
    sitting.terminal.variables.pop("GUESTKEY_URL")  # login remembers it
    assert "Ada Guest" in sitting.terminal.run("whoami").out
    assert sitting.terminal.run("logout").code == 0
    assert not file.exists()
    assert sitting.terminal.run("whoami").code == 4
    assert sitting.terminal.run("whoami", GUESTKEY_TOKEN=token).code == 4, "ended on the server too"


def test_repeated_login_ends_the_earlier_token(sitting: Sitting, world: World) -> None:
    def living() -> int:
        with world.database.transaction() as tx:
            mine = ApiToken.person_id == sitting.signed.id, ApiToken.ended_at.is_(None)
            return tx.scalars(select(func.count()).where(*mine)).one()

    before = living()
    sitting.sign_in()
    file = sitting.terminal.home / ".local/share/guestkey/tokens.json"
    first = next(iter(json.loads(file.read_text()).values()))
    sitting.sign_in()
    assert living() == before + 1, "signing in again ends the token before"
    assert sitting.terminal.run("whoami", GUESTKEY_TOKEN=first).code == 4
    assert sitting.terminal.run("logout").code == 0
    file.mkdir()
    login, address = sitting.begin()
    requests.get(sitting.allow(address), timeout=5)
    done = finish(login)
    assert (done.code, "tokens.json cannot be read." in done.err) == (1, True), done.err
    assert living() == before, "what cannot be kept is ended"


def test_terminal_and_page_show_the_same_code(sitting: Sitting) -> None:
    login, address = sitting.begin()
    assert login.stderr is not None
    shown = next(found[1] for line in login.stderr if (found := re.search(r"shows this code: (\w{4}-\w{4})\n", line)))
    assert shown in sitting.browser.open(address).text


def test_callback_with_wrong_state_or_issuer_is_refused(sitting: Sitting) -> None:
    login, address = sitting.begin()
    asked = parse_qs(urlsplit(address).query)
    back, state = asked["redirect_uri"][0], asked["state"][0]
    for query in ("", "?code=x", "?code=x&state=wrong", f"?code=x&state={state}x"):
        assert requests.get(back + query, timeout=5).status_code == 404
    assert requests.get(back.replace("/callback", "/other") + f"?code=x&state={state}", timeout=5).status_code == 404
    assert login.poll() is None, "it goes on waiting for the real answer"
    requests.get(sitting.allow(address), timeout=5)
    assert finish(login).code == 0


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("code=x&state={state}&iss=https://evil.example", "came from another server"),
        ("code=x&state={state}", "came from another server"),
        ("code=x&code=y&state={state}&iss={iss}", "contains a parameter twice"),
        ("error=access_denied&state={state}&iss={iss}", "was refused"),
        ("state={state}&iss={iss}", "contains no code"),
        ("code=made-up&state={state}&iss={iss}", "was refused"),
    ],
)
def test_forged_callback_ends_the_sign_in(sitting: Sitting, query: str, says: str) -> None:
    login, address = sitting.begin()
    asked = parse_qs(urlsplit(address).query)
    filled = query.format(state=asked["state"][0], iss=sitting.browser.portal)
    requests.get(f"{asked['redirect_uri'][0]}?{filled}", timeout=5)
    done = finish(login)
    assert done.code in (2, 4), done.err
    assert says in done.err
    assert "Next: guestkey login" in done.err
    assert sitting.terminal.run("whoami").code == 4


def test_login_times_out_without_a_callback(sitting: Sitting) -> None:
    assert sitting.terminal.run("login", "--wait", "-5").code == 2
    login, _ = sitting.begin("--wait", "1")
    done = finish(login)
    assert (done.code, "in time" in done.err) == (4, True)


def test_callback_address_can_be_pasted(sitting: Sitting) -> None:
    """The browser is on another computer: its last address is typed into the terminal."""
    seen: list[str] = []
    answers: list[tuple[str, Answer]] = [
        ("press Enter.", "http://127.0.0.1:1/callback?state=other\n"),
        ("does not belong", lambda: seen[0] + "\n"),
    ]

    def read_address(screen: str) -> None:
        if not seen and (found := re.search(r"http\S+/oauth/authorize\?\S+(?=\r)", screen)):
            seen.append(sitting.allow(found[0]))

    ran = sitting.terminal.type("login", "--no-browser", answers=answers, watch=read_address)
    assert ran.code == 0, ran.out
    assert "Signed in to" in ran.out


def test_logout_everywhere_ends_browser_sessions(sitting: Sitting) -> None:
    sitting.sign_in()
    assert sitting.terminal.run("logout", "--everywhere").code == 0
    assert "id" not in sitting.browser.api("GET", "/me"), "the browser is signed out"
    assert sitting.terminal.run("whoami").code == 4


def test_code_prompt_repeats_until_correct_and_the_command_continues(sitting: Sitting) -> None:
    sitting.sign_in()
    slug = sitting.terminal.variables["DATASET"]
    not_enrolled = sitting.terminal.type("get", slug, "--kind", "postgres")
    assert (not_enrolled.code, "/security" in not_enrolled.out) in {(5, True), (3, True)}, not_enrolled.out
    authenticator = sitting.enrol()
    piped = sitting.terminal.run("get", slug, "--kind", "postgres")
    assert (piped.code, "Next: " in piped.err) == (5, True), piped.err
    answers: list[tuple[str, Answer]] = [(CODE, "000000\n"), (CODE, lambda: authenticator.code() + "\n")]
    asked = sitting.terminal.type("get", slug, "--kind", "postgres", "--field", "username", answers=answers, seconds=60)
    assert asked.code == 0, asked.out
    assert "in the last 15 min" in asked.out
    assert re.search(r"gk_[a-z0-9]{6}_l", asked.out)
    assert sitting.terminal.run("get", slug, "--kind", "postgres", "--field", "username").code == 0, "fresh from now on"


def test_confirm_reads_the_code_from_prompt_or_pipe(sitting: Sitting) -> None:
    sitting.sign_in()
    assert sitting.terminal.run("confirm").code == 5, "no terminal"
    authenticator = sitting.enrol()
    wrong = sitting.terminal.run("confirm", "--stdin", stdin="000000\n")
    assert wrong.code == 5, wrong.err
    right = sitting.terminal.run("confirm", "--stdin", "--json", stdin=authenticator.code() + "\n")
    assert right.code == 0, right.err
    assert json.loads(right.out)["data"]["factor_at"]
    quit_ = sitting.terminal.type("confirm", answers=[(CODE, CTRL_C)])
    assert quit_.code == 130
