"""Each exit code, from the real program against a real replica: they are an interface that scripts branch on."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import HttpUrl

from broker.base.settings import Settings
from broker.models import Lease, TotpFactor
from broker.runtime.parts import Parts, vault_of
from guestkey.cli.faults import Code
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import PROGRAM, Ran
from tests.support.world import Signed, World
from tests.web.conftest import Replica


@pytest.fixture
def without_key_store(settings: Settings, parts: Parts) -> Iterator[Replica]:
    """A replica whose key store is gone."""
    gone = settings.model_copy(update={"bao_addr": HttpUrl("http://127.0.0.1:1")})
    running = Replica(settings, replace(parts, vault=vault_of(gone, "issuer")))
    running.start()
    yield running
    running.stop()


def error(ran: Ran) -> dict[str, object]:
    """The one error of a `--json` command that did not work; it says its own exit code, and nothing went to stdout."""
    assert ran.out == ""
    document = json.loads(ran.err)
    found: dict[str, object] = document["error"]
    assert (document["version"], found["exit_code"]) == (1, ran.code)
    return found


def enrolled(world: World, signed: Signed) -> None:
    """Give somebody an authenticator app; which codes it shows does not matter here."""
    world.add(TotpFactor(person_id=signed.id, wrapped_secret="unused", confirmed_at=world.now()))


def test_exit_codes_match_the_documentation() -> None:
    assert {code.name: int(code) for code in Code} == {
        "DONE": 0,
        "FAULT": 1,
        "USAGE": 2,
        "DENIED": 3,
        "SIGN_IN": 4,
        "FACTOR": 5,
        "NOT_FOUND": 6,
        "WAITING": 7,
        "BACKEND": 8,
        "PARTLY": 9,
        "CHILD_NOT_RUN": 125,
        "INTERRUPTED": 130,
    }


def test_request_exits_0_1_2_and_7(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    dataset, terminal = world.dataset(vendor, owner=world.person()), terminal_of(world.person(vendor))
    words = ["request", "new", dataset.slug, "--role", "annotator", "--purpose", "March", "--json"]
    made = terminal.run(*words)
    assert (made.code, made.err) == (0, "")
    request_id = json.loads(made.out)["data"]["id"]
    again = error(terminal.run(*words))
    assert (again["exit_code"], again["code"]) == (1, "conflict")
    assert again["next"] == "guestkey request list"
    usage = error(terminal.run(*words, "--period", "soon"))
    assert (usage["exit_code"], usage["code"]) == (2, "usage")
    refused = error(terminal.run(*words, "--period", "9999999w"))
    assert (refused["exit_code"], refused["code"], refused["next"]) == (2, "invalid", "guestkey request new --help")
    told = terminal.run(*words[:-1], "--period", "9999999w").err.splitlines()
    assert [line.split(":")[0] for line in told] == ["Error", "  --period", "Next"], "each thing once, as it is typed"
    waiting = terminal.run("request", "show", request_id, "--wait", "1s")
    assert (waiting.code, f"Next: guestkey request show {request_id} --wait 10m" in waiting.err) == (7, True)


@pytest.mark.parametrize(
    ("typed", "code", "next_"),
    [
        (("lease", "lsit"), 2, "guestkey lease --help"),
        (("lease", "list", "--nonsense"), 2, "guestkey lease list --help"),
        (("grant", "show"), 2, "guestkey grant show --help"),
        (("run", "--nonsense", "trials", "--", "true"), 125, "guestkey run --help"),
        (("connect",), 125, "guestkey connect --help"),
    ],
)
def test_usage_error_exits_2_in_json_too_and_125_for_run(
    terminal_of: TerminalOf, typed: tuple[str, ...], code: int, next_: str
) -> None:
    plain = terminal_of(None).call(*typed)
    assert (plain.code, plain.out, plain.err.splitlines()[-1]) == (code, "", f"Next: {next_}")
    as_json = terminal_of(None).call(typed[0], "--json", *typed[1:])
    assert json.loads(as_json.err)["error"]["code"] == "usage"


def test_denied_exits_3_and_not_found_exits_6(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    dataset, terminal = world.dataset(vendor), terminal_of(world.person(vendor))
    denied = error(terminal.run("get", dataset.slug, "--kind", "postgres", "--json"))
    assert (denied["exit_code"], denied["code"]) == (3, "denied")
    assert denied["next"] == f"guestkey request new {dataset.slug}"
    foreign = world.dataset(world.vendor())
    for typed in (["dataset", "show", foreign.slug], ["dataset", "show", "no-such"], ["lease", "show", "l01none"]):
        assert terminal.run(*typed, "--json").code == 6


def test_missing_or_ended_sign_in_exits_4(world: World, terminal_of: TerminalOf) -> None:
    assert error(terminal_of(None).run("whoami", "--json"))["exit_code"] == 4
    ended = error(terminal_of(world.person()).run("whoami", "--json", GUESTKEY_TOKEN="gka_made-up"))
    assert (ended["exit_code"], ended["code"], ended["next"]) == (4, "not_signed_in", "guestkey login")


def test_stale_factor_without_a_terminal_exits_5(world: World, terminal_of: TerminalOf) -> None:
    vendor = world.vendor()
    signed, dataset = world.person(vendor, factor_age=7200), world.dataset(vendor)
    enrolled(world, signed)
    world.grant(dataset, signed)
    stale = error(terminal_of(signed).run("get", dataset.slug, "--kind", "postgres", "--json"))
    assert (stale["exit_code"], stale["code"]) == (5, "insufficient_user_authentication")
    assert stale["next"] == "guestkey confirm"
    assert terminal_of(signed).run("run", dataset.slug, "--", "true").code == 125


def test_unreachable_openbao_exits_8(world: World, terminal_of: TerminalOf, without_key_store: Replica) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    terminal.variables["GUESTKEY_URL"] = without_key_store.url
    down = error(terminal.run("get", dataset.slug, "--kind", "postgres", "--json"))
    assert (down["exit_code"], down["code"], down["next"]) == (8, "backend_down", "guestkey status")
    status = terminal.run("status")
    assert (status.code, "openbao" in status.out.lower()) == (8, True), status.out
    assert terminal.run("whoami").code == 0, "what needs no key store goes on"


def test_unconfirmed_end_exits_9(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    lease_id = world.issue(signed, dataset).lease.id
    running = terminal_of(signed).start("lease", "revoke", lease_id, "--wait", "20s")
    world.wait_for(lease_id, "revoking")
    world.change(Lease, lease_id, state="revoke_failed", attempts=3, last_error="a fault made for this test")
    _, err = running.communicate(timeout=30)
    assert (running.returncode, f"Next: guestkey lease show {lease_id}" in err) == (9, True), err
    world.change(Lease, lease_id, state="revoking")
    world.sweep()


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_interrupted_wait_exits_130(world: World, terminal_of: TerminalOf, number: signal.Signals) -> None:
    vendor = world.vendor()
    dataset, terminal = world.dataset(vendor, owner=world.person()), terminal_of(world.person(vendor))
    words = ["--role", "annotator", "--purpose", "March"]
    running = terminal.start("request", "new", dataset.slug, *words, "--wait", "50s")
    assert running.stderr is not None
    assert "waiting for the decision" in running.stderr.readline()
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_credential_that_could_not_be_printed_is_revoked(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    words = [str(PROGRAM), "get", dataset.slug, "--kind", "postgres"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, env=terminal.variables, timeout=60, check=False
        )
    assert (done.returncode, "No space left" in done.stderr) == (1, True), done.stderr
    assert terminal.run("get", dataset.slug, "--kind", "postgres", "--field", "colour").code == 2
    (one, other) = json.loads(terminal.run("lease", "list", "--json").out)["data"]["items"]
    assert {one["state"], other["state"]} <= {"revoking", "revoked"}


def test_closed_output_streams_cause_no_error(terminal_of: TerminalOf) -> None:
    environment = terminal_of(None).variables
    for closed, code in (("help >&-", 0), ("whoami 2>&-", 4), ("confirm <&-", 4), ("help >/dev/full", 1)):
        done = subprocess.run(
            ["sh", "-c", f"{PROGRAM} {closed}"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), closed
