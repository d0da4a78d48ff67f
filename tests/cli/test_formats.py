"""`get --format` and `--out`: what tools read, as those tools read it, in files that are nobody else's."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from broker.kinds.client import Credential
from broker.kinds.ssh.client import ssh_files
from guestkey.cli import formats, own_files, variables
from guestkey.cli.commands import topics
from guestkey.cli.faults import Fault
from tests.cli import broken
from tests.cli.conftest import TerminalOf
from tests.cli.terminal import PROGRAM, Terminal
from tests.support.world import World

HOSTILE = """it's "q" $(touch pwned) `id` \\ : ; & \n new"""
POSTGRES = {"host": "db", "port": "5432", "dbname": "data", "username": "gk_x", "password": "p:a\\s:s"}
S3 = {"access_key_id": "AKIA", "secret_access_key": "s3cr3t", "session_token": "t0ken", "region": "eu-central-1"}
SSH = {
    "certificate": "ssh-ed25519-cert-v01@openssh.com AAAA",
    "private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n",
    "host": "files.example",
    "port": "2222",
    "user": "gk-guest",
    "host_key": "[files.example]:2222 ssh-ed25519 AAAA",
}


def handed(kind: str, values: dict[str, str]) -> Credential:
    """A credential as `get` has it in hand."""
    lease = {"id": "l01", "kind": kind, "expires_at": "2030-01-01T00:00:00.123456+00:00"}
    return Credential("trials", kind, lease, values, {})


def text(name: str, kind: str, values: dict[str, str]) -> str:
    """What a format writes."""
    chosen = formats.named(name, kind)
    return formats.text_of(chosen, chosen.files(handed(kind, values), Path("/f")), marked=False)


def live(terminal: Terminal) -> int:
    """How many leases of this person live."""
    return len(json.loads(terminal.run("lease", "list", "--json", "--state", "live").out)["data"]["items"])


# -- what is written ----------------------------------------------------------------------------------------------


def test_env_format_is_safe_to_eval(tmp_path: Path) -> None:
    lines = text("env", "token", {"access_token": HOSTILE})
    seen = subprocess.run(
        ["sh", "-c", 'eval "$1"; printf %s "$GUESTKEY_ACCESS_TOKEN"', "sh", lines],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert seen.stdout == HOSTILE
    assert list(tmp_path.iterdir()) == []


def test_invalid_variable_names_are_not_printed_for_eval() -> None:
    names = ("a; touch pwned", "a\nb", "", "ä", "1a", "fine")
    assert text("env", "token", dict.fromkeys(names, "x")) == "export GUESTKEY_FINE=x\n"


def test_env_format_unsets_variables_that_redirect_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "PGHOSTADDR", "AWS_CA_BUNDLE"):
        monkeypatch.setenv(name, "foreign")
    lines = text("env", "s3", S3).splitlines()
    assert {"unset AWS_PROFILE", "unset AWS_ENDPOINT_URL_S3"} <= set(lines)
    assert not [line for line in lines if "PGHOSTADDR" in line or "AWS_CA_BUNDLE" in line]
    assert "unset PGHOSTADDR" in text("env", "postgres", POSTGRES).splitlines()


def test_program_environment_points_to_one_server_only() -> None:
    foreign = {"AWS_PROFILE": "x", "AWS_CONFIG_FILE": "/x", "AWS_PAGER": "", "GUESTKEY_TOKEN": "t", "PGHOST": "mine"}
    given = variables.environment("s3", S3 | {"endpoint_url": "https://s3.example"}, foreign)
    assert {name: value for name, value in given.items() if name.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_SESSION_TOKEN": "t0ken",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL_S3": "https://s3.example",
        "AWS_PAGER": "",
    }
    assert given["PGHOST"] == "mine" and "GUESTKEY_TOKEN" not in given
    assert variables.environment("s3", S3, {})["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] == "true"
    assert "GUESTKEY_PRIVATE_KEY" not in variables.environment("ssh", SSH, {})


def test_credential_process_output_matches_the_aws_format() -> None:
    document = json.loads(text("credential_process", "s3", S3))
    assert document == {
        "Version": 1,
        "AccessKeyId": "AKIA",
        "SecretAccessKey": "s3cr3t",
        "SessionToken": "t0ken",
        "Expiration": "2030-01-01T00:00:00+00:00",
    }


def test_pgpass_escapes_separators() -> None:
    assert text("pgpass", "postgres", POSTGRES) == "db:5432:data:gk_x:p\\:a\\\\s\\:s\n"
    with pytest.raises(Fault, match="is not valid"):
        text("pgpass", "postgres", POSTGRES | {"password": "a\nb:c:d:e:f"})


@pytest.mark.parametrize(
    "bad",
    [
        {"host": "x\nProxyCommand touch pwned"},
        {"host": "-oProxyCommand=id"},
        {"port": "22 33"},
        {"user": 'a"b'},
        {"user": "%h"},
        {"host_key": "a\n@cert-authority * ssh-ed25519 AAAA"},
        {"certificate": "a\nssh-ed25519 AAAA"},
        {"host_key": ""},
    ],
)
def test_server_values_cannot_inject_openssh_options(bad: dict[str, str]) -> None:
    with pytest.raises(Fault, match="is not valid"):
        ssh_files(handed("ssh", SSH | bad), Path("/f"))


def test_openssh_parses_the_written_config_as_intended(tmp_path: Path) -> None:
    folder = tmp_path / "a b%h"
    folder.mkdir()
    for name, content in ssh_files(handed("ssh", SSH), folder).items():
        (folder / name).write_text(content)
    read = subprocess.run(
        ["ssh", "-G", "-F", folder / "config", "guestkey"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {
        "hostname files.example",
        "port 2222",
        "user gk-guest",
        "identitiesonly yes",
        "stricthostkeychecking true",
        "forwardagent no",
        "identityagent none",
        "clearallforwardings yes",
        "globalknownhostsfile /dev/null",
    } <= set(read)
    for setting, name in (
        ("identityfile", "id"),
        ("certificatefile", "id-cert.pub"),
        ("userknownhostsfile", "known_hosts"),
    ):
        found = next(line for line in read if line.startswith(setting))
        assert found.replace("%%", "%").endswith(f"a b%h/{name}"), found


# -- which fits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "format_", "fitting"),
    [
        ("postgres", "credential-process", "env, json, pgpass, pg-service"),
        ("token", "pgpass", "env, json"),
        ("mariadb", "pgpass", "env, json, my-cnf"),
        ("s3", "ssh-agent", "env, json, credential-process"),
        ("ssh", "env", "json, ssh-agent, ssh-files"),
        ("x509", "pgpass", "json, pem"),
        ("token", "yaml", "env, json"),
    ],
)
def test_unsuitable_format_is_refused_before_any_request(tmp_path: Path, kind: str, format_: str, fitting: str) -> None:
    with broken.answering(broken.http(200, {})) as (url, heard):
        ran = Terminal(tmp_path, url, GUESTKEY_TOKEN="gka_x").call("get", "trials", "--kind", kind, "--format", format_)
    assert (ran.code, ran.out, heard) == (2, "", [])
    assert f"Next: For kind {kind} use one of: {fitting}." in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--kind", "postgres", "--format", "pg-service"), "Add --out FOLDER"),
        (("--kind", "postgres", "--format", "env", "--field", "password"), "--field prints one value"),
        (("--kind", "postgres", "--out", "x"), "Add --format env or json or pgpass or pg-service."),
        (("--kind", "postgres", "--format", "env", "--out", "no/such/file"), "no/such is not a folder"),
        (("--kind", "ssh"), "--public-key FILE"),
        (("--kind", "x509", "--field", "certificate"), "--public-key FILE"),
        (("--kind", "token", "--public-key", "key.pub"), "does not use a public key"),
        (("--kind", "ssh", "--public-key", "key"), "contains a private key"),
        (("--kind", "ssh", "--public-key", "absent"), "cannot be read"),
        (("--kind", "ssh", "--public-key", "key.pub", "--format", "ssh-agent"), "creates the key itself"),
        (("--kind", "ssh", "--format", "ssh-agent", "--out", "x"), "nothing is written"),
        (("--kind", "ssh", "--format", "ssh-agent"), "SSH_AUTH_SOCK is not set"),
    ],
)
def test_contradictory_options_are_refused_before_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me")
    (tmp_path / "key").write_text(SSH["private_key"])
    monkeypatch.chdir(tmp_path)
    with broken.answering(broken.http(200, {})) as (url, heard):
        ran = Terminal(tmp_path, url, GUESTKEY_TOKEN="gka_x").call("get", "trials", *arguments)
    assert (ran.code, ran.out, heard) == (2, "", []), ran
    assert says in ran.err


def test_every_format_is_described_in_the_help() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "sdk.md").read_text()
    undescribed = [name for name in formats.FORMATS if f"`{name}`" not in page or name not in topics.read("tools")]
    assert undescribed == []


# -- files --------------------------------------------------------------------------------------------------------


def test_output_file_is_private_and_replaces_only_own_files(tmp_path: Path) -> None:
    file = tmp_path / "env"
    before = os.umask(0)
    try:
        own_files.write_file(file, own_files.MARK + "first\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    own_files.write_file(file, own_files.MARK + "second\n")
    assert file.read_text().endswith("second\n")
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside it"


@pytest.mark.parametrize("make", ["file", "folder", "link", "dangling", "empty"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, make: str) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    other.write_text(own_files.MARK)
    if make == "file":
        target.write_text("mine")
    elif make == "empty":
        target.touch()
    elif make == "folder":
        target.mkdir()
        (target / "mine").touch()
    else:
        target.symlink_to(other if make == "link" else tmp_path / "absent")
    for write in (own_files.write_file, lambda path, _text: own_files.write_folder(path, {"key.pem": "x"})):
        with pytest.raises(Fault, match="not written by this command"):
            write(target, own_files.MARK + "ours")
    assert other.read_text() == own_files.MARK
    assert make != "file" or target.read_text() == "mine"


def test_output_folder_is_private_and_readable_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    own_files.write_folder(folder, {"key.pem": "first"})
    own_files.write_folder(folder, {"key.pem": "second"})
    assert (folder / "key.pem").read_text() == "second"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o750)
    with pytest.raises(Fault, match="can be read by others"):
        own_files.write_folder(folder, {"key.pem": "third"})
    assert (folder / "key.pem").read_text() == "second"


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns it could put another config, which runs commands, in the place of ours."""
    ours, raced = tmp_path / "keys", tmp_path / "raced"
    ours.mkdir(mode=0o700)
    somebody = os.geteuid() + 1
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: somebody)
        with pytest.raises(Fault, match="not written by this command"):
            own_files.write_folder(ours, {"config": "x"})
    with monkeypatch.context() as patched:
        # It was not there when it was looked for.
        patched.setattr(own_files, "check_folder", lambda target: target.symlink_to(ours))
        with pytest.raises(Fault, match="not written by this command"):
            own_files.write_folder(raced, {"config": "x"})
    assert not list(ours.iterdir())


def test_session_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `su` the variable still names the folder of whoever that was."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    with own_files.passing() as folder:
        assert folder.parent == tmp_path
    tmp_path.chmod(0o770)
    assert own_files.session_folder() is None
    tmp_path.chmod(0o700)
    somebody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert own_files.session_folder() is None
    with own_files.passing() as folder:
        assert folder.parent != tmp_path


# -- on the real parts --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("worker")
def test_psql_logs_in_with_pgpass_and_with_a_service_file(
    world: World, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    folder = tmp_path / "pg"
    ran = terminal.run("get", dataset.slug, "--kind", "postgres", "--format", "pg-service", "--out", str(folder))
    assert (ran.code, ran.out) == (0, ""), ran.err
    section = (folder / "pg_service.conf").read_text()
    assert "password" not in section
    user = next(line for line in section.splitlines() if line.startswith("user="))
    seen = psql(f"service={dataset.slug}", PGSERVICEFILE=str(folder / "pg_service.conf"))
    assert f"user={seen}" == user
    assert f"PGSERVICEFILE={folder}/pg_service.conf psql service={dataset.slug}" in ran.err
    file = tmp_path / "pgpass"
    again = terminal.run("get", dataset.slug, "--kind", "postgres", "--format", "pgpass", "--out", str(file))
    assert again.code == 0, again.err
    relation = next(line for line in again.err.splitlines() if line.startswith("It can read: ")).removeprefix(
        "It can read: "
    )
    counted = subprocess.run(
        ["psql", "-XAtc", f"SELECT count(*) >= 0 FROM {relation}", f"service={dataset.slug}"],
        env={"PGSERVICEFILE": str(folder / "pg_service.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert counted.stdout == "t\n", counted.stderr
    host, port, dbname, name, _ = file.read_text().splitlines()[1].split(":")
    place = f"host={host} port={port} dbname={dbname} user={name} sslmode=disable"
    assert psql(place, PGPASSFILE=str(file)) == name


@pytest.mark.usefixtures("worker")
def test_eval_of_env_is_enough_for_psql(world: World, terminal_of: TerminalOf) -> None:
    signed, dataset, _ = world.guest()
    lines = terminal_of(signed).run("get", dataset.slug, "--kind", "postgres", "--format", "env").out
    seen = subprocess.run(
        ["sh", "-c", 'eval "$1"; psql -XAtc "SELECT count(*) FROM $GUESTKEY_RELATION"', "sh", lines],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(seen.stdout) > 0


@pytest.mark.usefixtures("worker")
def test_format_json_equals_the_json_option(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    by_format, by_json = (
        json.loads(terminal.run("get", dataset.slug, "--kind", "token", *more).out)
        for more in (("--format", "json"), ("--json",))
    )
    assert (by_format["version"], by_format["command"]) == (by_json["version"], by_json["command"]) == (1, "get")
    assert sorted(by_format["data"]["credential"]) == sorted(by_json["data"]["credential"])
    file = tmp_path / "token.json"
    assert terminal.run("get", dataset.slug, "--kind", "token", "--format", "json", "--out", str(file)).code == 0
    assert json.loads(file.read_text())["data"]["credential"]["access_token"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert live(terminal) == 3
    refused = terminal.run("get", dataset.slug, "--kind", "token", "--format", "json", "--out", str(file))
    assert (refused.code, live(terminal)) == (2, 3), "it is not asked for where it could not be written"


@pytest.mark.usefixtures("worker")
def test_credential_that_could_not_be_written_is_revoked(world: World, terminal_of: TerminalOf, tmp_path: Path) -> None:
    signed, dataset, _ = world.guest()
    terminal = terminal_of(signed)
    # A file of no size may be made there, and nothing be written into it.
    script = f"ulimit -f 0; trap '' XFSZ; guestkey get {shlex.quote(dataset.slug)} --kind postgres --format env --out e"
    ran = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=terminal.variables | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "e cannot be written" in ran.stderr and "the backend confirmed it" in ran.stderr
    assert live(terminal) == 0
    assert not [path.name for path in tmp_path.iterdir() if path.name.lstrip(".").startswith("e")]


def psql(place: str, **settings: str) -> str:
    """As whom psql logs in, with no setting but these."""
    done = subprocess.run(
        ["psql", "-XAtw", place, "-c", "SELECT current_user"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **settings},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
