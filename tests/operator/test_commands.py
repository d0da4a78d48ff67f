"""The server's commands, run as an operator runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from broker.embedded.children import free_port
from broker.embedded.stack import Stack
from broker.models import Installation
from broker.policies import __file__ as policies_file
from broker.runtime.parts import Parts
from tests.cli.terminal import Terminal
from tests.operator.conftest import command
from tests.support.waiting import answered

# As an operator starts it: through the one command there is.
RUN = [str(Path(sys.executable).with_name("guestkey"))]
POLICIES = Path(policies_file).parent
PLACE = ("--host", "localhost", "--dbname", "d", "--name", "d")
STORE = ("--name", "s", "--bucket", "b", "--role-arn", "arn:aws:iam::1:role/r")
Start = Callable[[list[str]], "subprocess.Popen[str]"]


@pytest.fixture
def environment(stack: Stack, parts: Parts) -> dict[str, str]:
    """The stack's settings; the installation has been set up."""
    assert parts.tag
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GUESTKEY_")}
    return {**kept, **stack.environment(), "GUESTKEY_SWEEP_INTERVAL": "0.5"}


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start a command in the background; it is stopped afterwards, by process id."""
    started: list[subprocess.Popen[str]] = []

    def begin(arguments: list[str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*RUN, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=10)


def test_replicas_share_metrics_and_stop_gracefully(start: Start, environment: dict[str, str]) -> None:
    port = free_port()
    child = start(["serve", "--port", str(port), "--workers", "2"])
    base = f"http://127.0.0.1:{port}"
    assert answered(f"{base}/readyz", child).json() == {
        "ready": True,
        "missing": {},
        "checks": dict.fromkeys(("postgresql", "migrations", "clock", "rules", "openbao"), "ok"),
    }
    for _ in range(8):
        httpx.get(f"{base}/healthz")
    numbers = httpx.get(f"{base}/metrics").text
    counted = next(line for line in numbers.splitlines() if 'route="/healthz"' in line and "_count" in line)
    assert float(counted.rsplit(" ", 1)[1]) >= 8
    assert 'guestkey_leases{state="revoke_failed"}' in numbers
    assert 'guestkey_silent_places{kind="postgres"} ' in numbers
    assert httpx.get(f"{base}/metrics", headers={"X-Forwarded-For": "203.0.113.1"}).status_code == 404
    canaries = {"Authorization": "Bearer gka_canary", "Cookie": "__Host-guestkey=canary"}
    host = {"Host": httpx.URL(environment["GUESTKEY_PUBLIC_URL"]).netloc.decode()}
    for path in ("/join/canary", "/api/v1/datasets/canary?canary=canary", "/canary"):
        httpx.post(f"{base}{path}", headers=canaries | host, json={"canary": "canary"})
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=60)
    assert child.returncode == 0
    assert '"event": "request"' in log and "canary" not in log


def test_worker_serves_metrics_and_stops_gracefully(start: Start) -> None:
    port = free_port()
    child = start(["worker", "--metrics-port", str(port)])
    assert "guestkey_strays" in answered(f"http://127.0.0.1:{port}/metrics", child).text
    child.send_signal(signal.SIGTERM)
    _, log = child.communicate(timeout=60)
    assert child.returncode == 0
    assert '"worker.stopped"' in log


def test_missing_and_wrong_settings_are_named_without_their_values(environment: dict[str, str]) -> None:
    del environment["GUESTKEY_BAO_ADDR"]
    environment["GUESTKEY_DATABASE_URL"] = "mysql://canary-5d21@nowhere"
    done = command(["serve"], environment)
    assert done.returncode == 2
    assert "GUESTKEY_BAO_ADDR: Field required" in done.stderr and "GUESTKEY_DATABASE_URL" in done.stderr
    assert "canary" not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_file_of_settings_is_read(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "settings"
    moved = [key for key in environment if key.startswith("GUESTKEY_")]
    file.write_text("".join(f"{key}={environment.pop(key)}\n" for key in moved))
    assert command(["migrate"], environment | {"GUESTKEY_SETTINGS_FILE": str(file)}).returncode == 0
    assert command(["migrate"], environment).returncode == 2


def test_migrate_is_repeatable_and_needs_the_owner(environment: dict[str, str]) -> None:
    for _ in range(2):
        done = command(["migrate"], environment)
        assert (done.returncode, done.stdout) == (0, "The database is up to date.\n")
    del environment["GUESTKEY_OWNER_DATABASE_URL"]
    assert command(["migrate"], environment).returncode == 2


def test_rules_are_checked_and_tested_without_a_server(environment: dict[str, str], tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, **environment)

    def policy(verb: str, *more: str) -> tuple[int, dict[str, Any]]:
        done = terminal.call("policy", verb, str(tmp_path), "--json", *more)
        assert "" in (done.out, done.err), done
        return done.code, json.loads(done.out or done.err)

    code, missing = policy("check")
    assert (code, missing["error"]["title"]) == (2, f"{tmp_path / 'rules.csv'} cannot be read.")
    for name in ("rules.csv", "networks.csv", "tests.csv"):
        (tmp_path / name).write_text((POLICIES / name).read_text())
    code, checked = policy("check")
    assert (code, checked["command"], checked["data"]["rules"] > 0) == (0, "policy check", True)
    code, tested = policy("test")
    assert (code, tested["data"]["passed"], tested["data"]["failed"]) == (0, tested["data"]["total"], [])
    rules = (tmp_path / "rules.csv").read_text()
    (tmp_path / "rules.csv").write_text(rules.replace("role:annotator,", "role:labeller,", 1))
    code, failed = policy("test")
    assert (code, {"name", "line", "expected", "actual"} <= failed["data"]["failed"][0].keys()) == (1, True)
    assert "expected" in terminal.call("policy", "test", str(tmp_path)).err
    (tmp_path / "rules.csv").write_text(rules + "role:x, dataset:*, full, read, ttl<=1h, allow\n")
    for verb in ("check", "test"):
        code, wrong = policy(verb)
        assert (code, wrong["error"]["code"]) == (2, "rules_invalid")
        assert "line" in wrong["error"]["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("postgres", (), "--host is missing."),
        ("postgres", ("--host", "localhost", "--dbname", "d"), "--name is missing."),
        ("postgres", (*PLACE, "--tls", "verify-full"), "The certificate authority of the database's certificate"),
        ("postgres", (*PLACE, "--tls", "disable", "--user", "dba"), "--password-file is missing."),
        ("s3", (), "--name is missing."),
        ("s3", (*STORE,), "--issuer-key-file is missing."),
        ("ssh", (), "Missing option '--name'."),
    ],
)
def test_connecting_without_a_needed_option_and_a_terminal_is_a_usage_error(
    environment: dict[str, str], tmp_path: Path, kind: str, given: tuple[str, ...], said: str
) -> None:
    terminal = Terminal(tmp_path, **environment)
    plain = terminal.call("connect-backend", kind, *given)
    assert (plain.code, plain.out) == (2, "") and said in plain.err, plain
    incomplete = terminal.call("connect-backend", kind, *given, "--json")
    error = json.loads(incomplete.err)["error"]
    assert (incomplete.code, error["exit_code"], error["code"]) == (2, 2, "usage")
    assert error["title"].startswith(said)


def test_server_commands_print_json(environment: dict[str, str], tmp_path: Path) -> None:
    migrated = command(["migrate", "--json"], environment)
    assert json.loads(migrated.stdout) == {"version": 1, "command": "migrate", "data": {"up_to_date": True}}
    terminal = Terminal(tmp_path, **environment)
    refused = terminal.call("end-everything", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["exit_code"]) == (1, 1)
    bare = Terminal(tmp_path)
    unset = bare.call("recover", "--json")
    assert unset.code == 2
    assert "GUESTKEY_DATABASE_URL" in {item["pointer"] for item in json.loads(unset.err)["error"]["errors"]}
    misread = bare.call("close")
    assert (misread.code, misread.err) == (
        2,
        "Error: Missing option '--reason'.\nNext: guestkey close --help\n",
    )
    assert json.loads(bare.call("close", "--json").err)["error"]["code"] == "usage"
    shown = bare.call("close", "--help")
    assert (shown.code, shown.out.isascii()) == (0, True), "no boxes are drawn in a pipe"


@pytest.fixture
def fresh_installation(parts: Parts) -> Iterator[None]:
    """An installation that was never bootstrapped, for this test only."""

    def forget() -> None:
        with parts.database.transaction() as tx:
            tx.execute(update(Installation).values(bootstrapped_at=None))

    forget()
    yield
    forget()


@pytest.mark.usefixtures("fresh_installation")
def test_bootstrap_invites_the_first_admins_once(environment: dict[str, str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary-client-secret\n")
    arguments = ["bootstrap", "--issuer", "https://id.example", "--client-id", "guestkey"]
    asked = command([*arguments, "--issuer", "https://nowhere.invalid"], environment)
    assert asked.returncode == 1 and "its name nowhere.invalid is not known" in asked.stderr, asked.stderr
    assert "--unchecked" in asked.stderr
    first = command([*arguments, "--client-secret-file", str(secret), "--unchecked"], environment)
    assert first.returncode == 0, first.stderr
    links = [line for line in first.stdout.splitlines() if "/join/" in line]
    assert len(links) == 2 and links[0] != links[1]
    assert "guestkey source check" in first.stdout
    again = command(arguments, environment)
    assert again.returncode == 1 and "recover" in again.stderr
    glass = command(["recover", "--json"], environment)
    assert glass.returncode == 0 and "/join/" in json.loads(glass.stdout)["data"]["link"]
    assert "canary" not in first.stdout + first.stderr + again.stderr
    odd = command([*arguments, "--claim", "nonsense"], environment)
    assert odd.returncode == 1 and "NAME=VALUE" in odd.stderr
