"""What SFTP hosts ask of the API: who may ask, and what they are told. The answers themselves: tests/credentials."""

from __future__ import annotations

import secrets
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from tests.support.sshd import CONNECTION, SftpGuest, SftpHost, key_pair
from tests.support.world import World
from tests.web.conftest import ClientOf

ASK = "/ssh/sftp/leases/abc123-l01jd0?account=gk-1r&certificate=x"
LIST = "/ssh/sftp/krl"


@pytest.mark.parametrize("path", [ASK, LIST])
def test_only_organisation_services_call_the_ssh_api(path: str, world: World, client_of: ClientOf) -> None:
    anonymous, guessing = client_of(None).get(path), client_of(None).get(path, auth=("sv_1", "guess"))
    assert {anonymous.status_code, guessing.status_code} == {401}
    assert anonymous.json()["code"] == guessing.json()["code"] == "not_signed_in"
    for signed in (world.person(roles=("admin",)), world.service(world.vendor())):
        refused = client_of(signed).get(path)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    answered = client_of(world.service(None)).get(path)
    assert answered.status_code == 200, answered.text
    assert answered.headers["Cache-Control"] == "no-store"


def test_ssh_host_authenticates_with_its_service_secret(world: World, client_of: ClientOf) -> None:
    service = world.host_service("a-secret-of-the-host")
    assert client_of(None).get(ASK, auth=(service, "a-secret-of-the-host")).json() == {"active": False}
    assert client_of(None).get(ASK, auth=(service, "another")).status_code == 401


def test_ssh_refusal_gives_no_reason(world: World, client_of: ClientOf) -> None:
    host = client_of(world.service(None))
    for handle in ("abc123-l01jd0", "x", "abc123-" + "l" * 27, "%00", "a%2Fb"):
        answer = host.get(f"/ssh/sftp/leases/{handle}?account=root&certificate=ssh-ed25519%20AAAA")
        assert answer.status_code in (200, 400, 404, 422)
        assert answer.status_code != 200 or answer.json() == {"active": False}
    assert host.get("/ssh/sftp/leases/abc123-l01jd0").status_code == 422


def test_krl_is_for_one_host_and_its_version_increases(world: World, client_of: ClientOf) -> None:
    host = client_of(world.service(None))
    texts = [host.get(LIST).json()["signed"].split("\n") for _ in range(2)]
    assert [text[:2] for text in texts] == [["guestkey-krl/1", "sftp"]] * 2
    assert int(texts[0][2]) < int(texts[1][2])
    shown = subprocess.run(
        ["ssh-keygen", "-Q", "-l", "-f", "/dev/stdin"], input=b64decode(texts[0][3]), capture_output=True, check=False
    )
    assert b"token-nobody" in shown.stdout, shown.stderr


def test_guest_gets_a_certificate_for_their_key(
    world: World, sftp: SftpHost, client_of: ClientOf, tmp_path: Path
) -> None:
    vendor = world.vendor()
    guest, directory = world.person(vendor), f"acme/{secrets.token_hex(4)}"
    sftp.directory(directory)
    binding = {"connection": CONNECTION, "directory": directory}
    dataset = world.dataset(vendor, kind="ssh", slices={"deidentified": binding})
    world.grant(dataset, guest)
    private, public = key_pair()
    body = {"dataset": dataset.slug, "slice": "deidentified", "kind": "ssh", "lifetime": 300}
    missing = client_of(guest).post("/leases", json=body)
    assert missing.status_code == 422 and "ssh-keygen" in missing.json()["advice"]
    weak = client_of(guest).post("/leases", json={**body, "public_key": f"cert-authority {public}"})
    assert (weak.status_code, weak.json()["errors"][0]["pointer"]) == (422, "/public_key")
    made = client_of(guest).post("/leases", json={**body, "public_key": f"{public} ada@laptop"})
    assert made.status_code == 201, made.text
    values = made.json()["credential"]
    assert SftpGuest(tmp_path, private, values).gets_in()
    renewed = client_of(guest).post(f"/leases/{made.json()['lease']['id']}/renew", json={})
    assert renewed.status_code == 422, renewed.text
