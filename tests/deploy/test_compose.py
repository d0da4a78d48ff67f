"""docker-compose.yml, Dockerfile and what they name, without Docker: references, users, tags, secrets, health."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.kinds.settings import AllSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {"migrate", "connect"}
KNOWN_KEYS = {"build", "image", "command", "entrypoint", "init", "restart", "depends_on", "healthcheck", "logging"}
KNOWN_KEYS |= {"user", "read_only", "tmpfs", "cap_add", "cap_drop", "security_opt"}
KNOWN_KEYS |= {"environment", "networks", "ports", "secrets", "volumes"}
# It changes to its own user after copying the key; everything else starts as what it stays.
STARTS_AS_ROOT = {"postgres", "records"}
everywhere = pytest.mark.parametrize("name", sorted(SERVICES))


def test_compose_has_every_designed_service() -> None:
    images = " ".join(str(service.get("image")) for service in SERVICES.values())
    assert {"web-1", "web-2", "worker", "front", "records", "postgres", "openbao", "keycloak"} <= set(SERVICES)
    assert "postgres:18" in images
    assert "openbao/openbao:" in images


@everywhere
def test_only_known_keys(name: str) -> None:
    assert set(SERVICES[name]) <= KNOWN_KEYS


@everywhere
def test_images_are_pinned(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.search(r":v?\d+\.\d+", image), image
    assert "latest" not in image


@everywhere
def test_containers_run_unprivileged(name: str) -> None:
    service = SERVICES[name]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    if name not in STARTS_AS_ROOT:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
        assert service["cap_drop"] == ["ALL"]


@everywhere
def test_services_have_health_checks_or_complete(name: str) -> None:
    if name in ONE_SHOT:
        assert SERVICES[name]["restart"] == "no"
        waiting = [other for other in SERVICES.values() if name in other.get("depends_on", {})]
        assert waiting
        for other in waiting:
            assert other["depends_on"][name] == {"condition": "service_completed_successfully"}
    else:
        assert SERVICES[name]["healthcheck"]["test"]


@everywhere
def test_every_mounted_file_exists_and_is_read_only(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _target, *mode = volume.split(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@everywhere
def test_started_scripts_are_executable(name: str) -> None:
    mounted = dict(volume.split(":")[1::-1] for volume in SERVICES[name].get("volumes", []))
    for program in SERVICES[name].get("entrypoint", [])[:1]:
        if program in mounted:
            assert (ROOT / mounted[program]).stat().st_mode & 0o111


@everywhere
def test_networks_and_dependencies_are_declared(name: str) -> None:
    assert set(SERVICES[name]["networks"]) <= set(COMPOSE["networks"])
    assert set(SERVICES[name].get("depends_on", {})) <= set(SERVICES)


@everywhere
def test_secrets_are_files_only(name: str) -> None:
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|_KEY$", key):
            assert str(value).startswith("/run/secrets/"), key
        assert not re.search(r"://[^/{}]*:[^/{}@]*@", str(value)), key


def test_each_identity_is_mounted_only_in_its_service() -> None:
    holders = {
        identity: {name for name, service in SERVICES.items() if f"guestkey_{identity}_secret_id" in service["secrets"]}
        for identity in ("issuer", "ender", "setup", "operator", "custodian")
    }
    # OpenBao itself needs all of them once, when it is new.
    assert holders == {
        "issuer": {"web-1", "web-2", "openbao"},
        "ender": {"worker", "openbao"},
        "setup": {"worker", "openbao"},
        "operator": {"connect", "openbao"},
        "custodian": {"openbao"},
    }


def test_only_the_proxy_and_guest_ports_are_published() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"front": ["443:443"], "postgres": ["5432:5432"]}
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_broker_logins_are_accepted_only_from_inside() -> None:
    subnet = COMPOSE["networks"]["inside"]["ipam"]["config"][0]["subnet"]
    for name in ("records", "data"):
        lines = [line.split() for line in (ROOT / f"deploy/postgresql/{name}_hba.conf").read_text().splitlines()]
        rules = [line for line in lines if line and not line[0].startswith("#")]
        assert rules[-1] == ["host", "all", "all", "all", "reject"]
        for kind, database, user, address, *_ in rules[1:-1]:
            assert kind == "hostssl"
            assert (database == "data") == (name == "data")
            assert address == ("all" if user.startswith("/^gk_") else subnet)


def test_records_and_datasets_share_no_server_volume_or_secret() -> None:
    records, data = SERVICES["records"], SERVICES["postgres"]
    assert "guests" not in records["networks"] and "ports" not in records
    assert not set(records["secrets"]) & set(data["secrets"])
    volumes = [{volume.split(":")[0] for volume in one["volumes"]} for one in (records, data)]
    assert not {name for name in volumes[0] & volumes[1] if not name.startswith("./")}


def test_compose_settings_exist() -> None:
    known = {f"GUESTKEY_{name.upper()}" for name in AllSettings.model_fields} | {"GUESTKEY_SETTINGS_FILE"}
    for name in ("web-1", "web-2", "worker", "migrate"):
        for key in SERVICES[name]["environment"]:
            assert not key.startswith("GUESTKEY_") or key.split("__")[0] in known, key


def test_generated_secrets_match_the_compose_file(tmp_path: Path) -> None:
    made = _make_secrets(tmp_path)
    named = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert named <= set(made)
    assert all(secret["file"] == f"deploy/secrets/{name}" for name, secret in COMPOSE["secrets"].items())
    assert oct(tmp_path.joinpath("secrets").stat().st_mode & 0o777) == "0o700"
    assert _make_secrets(tmp_path) == made, "a second run changes nothing"


def test_make_secrets_refuses_an_invalid_domain(tmp_path: Path) -> None:
    for domain in ("", "a b", "-x", "x;rm", "../x"):
        done = _run_make_secrets(tmp_path, domain)
        assert done.returncode != 0
    assert not (tmp_path / "secrets").exists()


def test_secrets_stay_out_of_git_and_image() -> None:
    assert "secrets/" in (ROOT / "deploy/.gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not [line for line in ignored if line.startswith("!") and "secret" in line]


def test_image_is_multi_stage_and_runs_unprivileged() -> None:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line and not line.startswith("#")]
    starts = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(starts) == 2
    assert all(re.match(r"FROM python:\d+\.\d+\.\d+-slim", lines[index]) for index in starts)
    last = lines[starts[-1] :]
    user = next(line for line in last if line.startswith("USER "))
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)
    assert any(line.startswith("HEALTHCHECK ") for line in last)
    for line in lines:
        for source in re.findall(r"^COPY (?!--from)(.+) \S+$", line):
            assert all((ROOT / word).exists() for word in source.split() if not word.startswith("--"))


def test_realm_has_no_secret_and_only_the_code_flow() -> None:
    realm = json.loads((ROOT / "deploy/keycloak/guestkey-realm.json").read_text())
    (client,) = realm["clients"]
    assert client["secret"] == "${GUESTKEY_CLIENT_SECRET}"
    assert client["redirectUris"] == ["https://${GUESTKEY_DOMAIN}/sign-in/callback"]
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"
    assert not (client["implicitFlowEnabled"] or client["directAccessGrantsEnabled"] or client["publicClient"])


def _make_secrets(folder: Path) -> dict[str, bytes]:
    done = _run_make_secrets(folder, "guestkey.example.com")
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_bytes() for file in (folder / "secrets").iterdir()}


def _run_make_secrets(folder: Path, domain: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "deploy/make-secrets", domain],
        env={"PATH": "/usr/bin:/bin", "SECRETS": str(folder / "secrets")},
        capture_output=True,
        text=True,
        check=False,
    )
