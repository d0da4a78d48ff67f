"""Backup and restore by the scripts an operator uses: what was revoked since does not come back to life."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from broker.base.errors import BackendDown, Denied
from broker.embedded.openbao import binary as bao
from broker.embedded.postgres import binary
from broker.leases import reconciling
from broker.models import Grant
from broker.revocation import closing, ending
from tests.support.world import World

DEPLOY = Path(__file__).parents[2] / "deploy"


def script(house: World, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts with an operator's environment."""
    owner = make_url(house.stack.postgres.url("owner", "guestkey"))
    programs = [Path(sys.executable).parent, bao().parent, Path(binary("pg_dump")).parent]
    environment = {
        **os.environ,
        **house.stack.environment(),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(owner.port),
        "PGUSER": owner.username or "",
        "PGPASSWORD": str(owner.password),
        "BAO_ADDR": house.stack.bao.address,
        "OPERATOR_SECRET_ID_FILE": str(house.stack.bao.secret_id_file("guestkey-operator")),
        "CUSTODIAN_SECRET_ID_FILE": str(house.stack.bao.secret_id_file("guestkey-custodian")),
        "GUESTKEY_OWNER_DATABASE_URL": house.stack.postgres.url("owner", "guestkey"),
    }
    return subprocess.run(
        [str(DEPLOY / name), *arguments], env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def all_closed(house: World) -> None:
    """No process of ours holds a connection to the records, as after stopping web and worker."""
    house.parts.database.close()
    house.ender.database.close()


def serving_again(house: World) -> None:
    """OpenBao elects itself anew after a restore."""
    end = time.monotonic() + 30
    while True:
        try:
            house.ender.vault.healthy()
            return
        except BackendDown:
            assert time.monotonic() < end
            time.sleep(0.3)


@pytest.mark.parametrize("scope", ["everything", "--records-only"])
def test_restored_installation_starts_closed(house: World, tmp_path: Path, scope: str) -> None:
    signed, dataset, grant = house.guest()
    other, hers, revoked = house.guest()
    old = house.issue(signed, dataset)
    wrapped = house.parts.vault.encrypt("totp", b"a seed", context=signed.id)
    folder = tmp_path / "backup"
    saved = script(house, "backup", str(folder))
    assert saved.returncode == 0, saved.stderr
    assert {file.name for file in folder.iterdir()} == {"records.dump", "openbao.snapshot", "SHA256SUMS"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in folder.iterdir())

    # What happens after a backup is what it knows nothing of.
    admin = house.person(roles=("admin",))
    with house.database.transaction() as tx:
        ending.revoke_grant(tx, revoked.id, admin.caller, "left the project", house.now())
    unknown = house.issue(signed, dataset)
    session = house.connect(unknown)

    busy = script(house, "restore", str(folder))
    assert busy.returncode == 1 and "stop every web replica" in busy.stderr
    all_closed(house)
    arguments = [] if scope == "everything" else [scope]
    restored = script(house, "restore", str(folder), *arguments)
    assert restored.returncode == 0, restored.stderr
    serving_again(house)

    with house.database.transaction() as tx:
        assert tx.get_one(Grant, revoked.id).revoked_at is None, "the backup revived it"
        stands = closing.installation_state(tx)
    assert stands.closed_at is not None and stands.held >= 2
    for guest, its in ((signed, dataset), (other, hers)):
        with pytest.raises(Denied) as denied:
            house.issue(guest, its)
        assert {"closed", "grant_held"} <= {reason.code for reason in denied.value.decision.reasons}

    closing.end_sessions_batch(house.ender)
    house.wait_sweeping(old.lease.id, "revoked")
    assert reconciling.reconcile(house.ender).ended == 1, "a credential the records know nothing of"
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()

    opener = house.person(roles=("admin",))
    with house.database.transaction() as tx:
        closing.reopen(tx, opener.caller, "looked through", house.now())
        assert closing.confirm_grants(tx, opener.caller, house.now(), grants=[grant.id]) == 1
    assert house.parts.vault.decrypt("totp", wrapped, context=signed.id) == b"a seed"
    assert house.issue(signed, dataset).values
    with pytest.raises(Denied):
        house.issue(other, hers)


def test_upgrade_script_updates_openbao_policies(house: World) -> None:
    for _ in range(2):
        ran = script(house, "openbao/upgrade")
        assert ran.returncode == 0, ran.stderr
    assert house.ender.vault.healthy()


def test_a_damaged_backup_changes_nothing(house: World, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    assert script(house, "backup", str(folder)).returncode == 0
    again = script(house, "backup", str(folder))
    assert again.returncode != 0, "a backup never overwrites another"
    signed, dataset, _ = house.guest()
    with (folder / "records.dump").open("ab") as dump:
        dump.write(b"\0")
    all_closed(house)
    refused = script(house, "restore", str(folder))
    assert refused.returncode != 0 and "records.dump" in refused.stdout + refused.stderr
    assert house.issue(signed, dataset).values, "nothing was touched"
