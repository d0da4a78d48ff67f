"""SFTP in the portal: a slice of a directory, and a certificate for a key of one's own."""

from __future__ import annotations

import html
import re
import secrets
from pathlib import Path

from broker.models import Lease
from tests.support.registering import register_waiting
from tests.support.sshd import CONNECTION, SftpGuest, SftpHost, key_pair
from tests.support.world import World
from tests.web.conftest import BrowserOf


def test_guest_enters_a_key_and_sees_the_sftp_command(
    world: World, sftp: SftpHost, browser_of: BrowserOf, tmp_path: Path
) -> None:
    vendor = world.vendor()
    guest, directory = world.person(vendor), f"acme/{secrets.token_hex(4)}"
    sftp.directory(directory)
    binding = {"connection": CONNECTION, "directory": directory}
    dataset = world.dataset(vendor, kind="ssh", slices={"deidentified": binding})
    grant, browser = world.grant(dataset, guest), browser_of(guest)
    path = f"/grants/{grant.id}/credential"
    page = browser.get(path).text
    assert "Your SSH public key" in page and "ssh-keygen -t ed25519" in page
    (form_id,) = re.findall(r'name="form_id" value="([^"]+)"', page)
    private, public = key_pair()
    fields = {"csrf_token": browser.csrf, "form_id": form_id, "slice": "deidentified", "kind": "ssh", "lifetime": "300"}
    refused = browser.post(path, data={**fields, "public_key": private.decode()})
    assert refused.status_code == 422 and "That was a private key" in refused.text
    # What was sent by mistake is not sent back.
    assert private.decode().splitlines()[1] not in refused.text
    shown = browser.post(path, data={**fields, "public_key": public})
    assert shown.status_code == 200, shown.text
    text = html.unescape(shown.text)
    (certificate,) = set(re.findall(r"ssh-ed25519-cert-v01@openssh\.com [A-Za-z0-9+/=]+", text))
    (user,) = set(re.findall(r"gk-[0-9a-z]+r\b", text))
    with world.database.transaction() as tx:
        lease = tx.query(Lease).filter(Lease.grant_id == grant.id).one()
    values = {"certificate": certificate, "user": user, "host": "127.0.0.1", "port": str(sftp.port)}
    values["host_key"] = f"[127.0.0.1]:{sftp.port} {sftp.host_key}"
    assert values["host_key"] in text and f"-P {sftp.port}" in text
    assert SftpGuest(tmp_path, private, values).gets_in()
    assert lease.kind == "ssh" and "SFTP host" not in text.partition("<h2>How it ends")[2]


def test_admin_registers_a_directory_slice(world: World, sftp: SftpHost, browser_of: BrowserOf) -> None:
    admin, dataset = browser_of(world.person(roles=("admin",))), world.dataset()
    directory = f"acme/{secrets.token_hex(4)}"
    sftp.directory(directory)

    def step(path: str, **fields: str) -> tuple[int, str]:
        answer = admin.post(path, data={"csrf_token": admin.csrf, **fields})
        return answer.status_code, answer.headers.get("location", "") or answer.text

    status, place = step("/datasets/new", connection=f"ssh/{CONNECTION}", dataset=dataset.slug)
    assert status == 303 and place.endswith("/place"), place
    assert "Guests see only this directory." in html.unescape(admin.get(place).text)
    wrong = step(place, **{"directory": "../etc", "may-read": "1"})
    assert wrong[0] == 422 and 'id="directory-wrong"' in wrong[1]
    status, describe = step(place, **{"directory": directory, "may-read": "1", "may-write": "1"})
    assert status == 303 and describe.endswith("/describe")
    status, review = step(describe, slice_name="pictures", slice_description="Pictures to label")
    assert status == 303, review
    status, slices = step(review)
    assert status == 303, slices
    register_waiting(world)
    shown = admin.get(slices).text
    assert directory in shown and "guests may read and write" in shown and "failed" not in shown
