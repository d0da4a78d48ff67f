"""What a guest's MariaDB user can and cannot do: each fault of this stack, on the real parts."""

from __future__ import annotations

from collections.abc import Iterator

import pymysql
import pytest

from broker.base.database import clock
from broker.kinds.mariadb.slices import connected
from broker.kinds.names import user_of
from broker.leases.issuing import Handed
from broker.models import Lease
from broker.revocation import ending
from tests.support.data import BERLIN, ROWS
from tests.support.mariadb import WARD_EVERY_ROW, Mariadb, Session, ask, ward_guest
from tests.support.world import World

# Not privileged, in MariaDB's many words for it; no such column; what views do not have.
_REFUSALS = (1044, 1045, 1142, 1143, 1227, 1347, 1370, 1419, 1698, 1054, 1959, 1471, 1423, 1288, 1031, 1345)


@pytest.fixture
def handed(world: World, ward: Mariadb) -> Iterator[Handed]:
    """A credential in use; ended afterwards, whatever the test did with it."""
    signed, dataset = ward_guest(world)
    made = world.issue(signed, dataset)
    yield made
    with world.database.transaction() as tx:
        ending.revoke_lease(tx, tx.get_one(Lease, made.lease.id), signed.caller, "", clock(tx))
    world.wait_sweeping(made.lease.id, "revoked")
    assert world.lease(made.lease.id).confirmed_by == "mariadb: no such user, no connection"
    assert ward.traces(made.lease.id) == 0


@pytest.fixture
def session(ward: Mariadb, handed: Handed) -> Iterator[Session]:
    """The guest's own session."""
    assert handed.values is not None
    opened = ward.guest(handed.values)
    yield opened
    if opened.open:
        opened.close()


def test_guest_reads_only_columns_and_rows_of_the_slice(session: Session, handed: Handed) -> None:
    assert handed.values is not None
    rows = ask(session, f"SELECT * FROM {handed.values['relation']}")
    assert len(rows) == BERLIN
    assert {(len(row), row[1]) for row in rows} == {(3, "berlin")}


_REFUSED = {
    "reading elsewhere": [
        "SELECT * FROM clinic.patients",
        "SELECT name FROM {relation}",
        "SELECT * FROM mysql.global_priv",
        "SELECT * FROM mysql.user",
        "SHOW CREATE VIEW {relation}",
        "EXPLAIN SELECT * FROM {relation}",
        "ANALYZE SELECT * FROM {relation}",
        "SHOW GRANTS FOR root@'%'",
        "SHOW MASTER STATUS",
        "SHOW ENGINE INNODB STATUS",
    ],
    "making things": [
        "CREATE DATABASE mine",
        "CREATE TABLE guestkey_slices.mine (x int)",
        # A fresh server lets every account in there.
        "CREATE TABLE test.mine (x int)",
        "CREATE TABLE test_mine.mine (x int)",
        "CREATE TEMPORARY TABLE guestkey_slices.mine (x int)",
        "CREATE VIEW guestkey_slices.mine AS SELECT 1",
        "CREATE DEFINER = root@'%' VIEW guestkey_slices.mine AS SELECT * FROM clinic.patients",
        "CREATE OR REPLACE VIEW {relation} AS SELECT * FROM clinic.patients",
        "CREATE DEFINER = root@'%' PROCEDURE guestkey_slices.mine() SELECT * FROM clinic.patients",
        "CREATE FUNCTION guestkey_slices.mine() RETURNS int RETURN 1",
        "CREATE FUNCTION sys_exec RETURNS int SONAME 'lib.so'",
        "CREATE EVENT guestkey_slices.mine ON SCHEDULE EVERY 1 SECOND DO SELECT 1",
        "CREATE TRIGGER guestkey_slices.mine BEFORE INSERT ON {relation} FOR EACH ROW SET @x = 1",
    ],
    "changing things": [
        "INSERT INTO {relation} VALUES (1, 'berlin', 1)",
        "UPDATE {relation} SET age = 0",
        "DELETE FROM {relation}",
        "TRUNCATE {relation}",
        "DROP VIEW {relation}",
        "LOCK TABLES {relation} READ",
    ],
    "files": [
        "SELECT * FROM {relation} INTO OUTFILE '/tmp/guestkey-stolen'",
        "SELECT 1 INTO DUMPFILE '/tmp/guestkey-stolen'",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE {relation}",
    ],
    "accounts": [
        "SET ROLE guestkey_keeper",
        "CREATE ROLE mine",
        "CREATE USER accomplice",
        "ALTER USER CURRENT_USER() WITH MAX_USER_CONNECTIONS 100",
        "ALTER USER root@'%' IDENTIFIED BY 'mine'",
        "SET PASSWORD FOR guestkey_watch@'%' = PASSWORD('mine')",
        "RENAME USER '{user}'@'%' TO mine@'%'",
        "DROP USER root@'%'",
        "GRANT SELECT ON {relation} TO guestkey_watch@'%'",
        "CALL guestkey_ops.guests('')",
        "CALL guestkey_ops.end_guest('{user}')",
        "CALL guestkey_ops.make_guest('gk_aaaaaa_l1', 'x', 'v_a')",
    ],
    "the server": [
        "SET GLOBAL general_log = ON",
        "SET SESSION sql_log_bin = 0",
        "SET GLOBAL init_connect = 'SELECT 1'",
        "FLUSH TABLES WITH READ LOCK",
        "INSTALL SONAME 'auth_socket'",
    ],
}


@pytest.mark.parametrize("what", list(_REFUSED))
def test_statement_is_refused(session: Session, handed: Handed, what: str) -> None:
    assert handed.values is not None
    for statement in _REFUSED[what]:
        with pytest.raises(pymysql.Error) as refused:
            ask(session, statement.format(relation=handed.values["relation"], user=handed.values["username"]))
        assert refused.value.args[0] in _REFUSALS, (statement, refused.value)


def test_guest_cannot_read_server_files(session: Session) -> None:
    assert ask(session, "SELECT load_file('/etc/passwd')") == ((None,),)


def test_guest_cannot_kill_other_sessions(session: Session, ward: Mariadb) -> None:
    with ward.admin() as admin:
        ((number,),) = ask(admin, "SELECT connection_id()")
        with pytest.raises(pymysql.OperationalError, match="not owner"):
            ask(session, f"KILL {number}")
        # This one is no error, and does nothing.
        ask(session, "KILL USER root")
        assert ask(admin, "SELECT connection_id()") == ((number,),)


def test_guest_sees_only_itself_and_its_view(session: Session, handed: Handed, ward: Mariadb) -> None:
    """What else is there, and who else, stays unknown, though other slices and sessions are there."""
    assert handed.values is not None
    user, view = handed.values["username"], handed.values["relation"].partition(".")[2]
    assert ask(session, "SHOW DATABASES") == (("guestkey_slices",), ("information_schema",))
    tables = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema NOT LIKE '%_schema'"
    assert ask(session, tables) == (("guestkey_slices", view),)
    assert ask(session, "SELECT view_definition FROM information_schema.views") == (("",),)
    with ward.admin():
        assert {row[0] for row in ask(session, "SELECT USER FROM information_schema.PROCESSLIST")} == {user}
    for nothing in ("routines", "triggers", "events", "applicable_roles"):
        assert ask(session, f"SELECT * FROM information_schema.{nothing}") == ()
    grantees = {row[0] for row in ask(session, "SELECT grantee FROM information_schema.user_privileges")}
    assert grantees == {f"'{user}'@'%'"}


def test_errors_do_not_reveal_rows_outside_the_slice(ward: Mariadb, session: Session, handed: Handed) -> None:
    """Age 21 is in Paris only. An index lets the guest's own condition run first, where the view does not forbid it."""
    assert handed.values is not None
    relation, user = handed.values["relation"], handed.values["username"]
    probe = "SELECT count(*) FROM {} WHERE age BETWEEN 21 AND 23 AND exp(CASE WHEN age = 21 THEN 1000 ELSE 0 END) > 0"
    within = ask(session, f"SELECT count(*) FROM {relation} WHERE age BETWEEN 21 AND 23")
    assert ask(session, probe.format(relation)) == within
    ask(session, "SET optimizer_switch = 'derived_merge=on,condition_pushdown_for_derived=on'")
    assert ask(session, probe.format(relation)) == within
    query = "SELECT id, site, age FROM clinic.patients WHERE site = 'berlin'"
    for algorithm in ("MERGE", "TEMPTABLE"):
        ward.ask(f"CREATE OR REPLACE ALGORITHM = {algorithm} VIEW guestkey_slices.leaky AS {query}")
        ward.ask(f"GRANT SELECT ON guestkey_slices.leaky TO '{user}'@'%'")
        with pytest.raises(pymysql.Error, match="out of range"):
            ask(session, probe.format("guestkey_slices.leaky"))
    ward.ask("DROP VIEW guestkey_slices.leaky")


def test_fourth_session_is_refused(ward: Mariadb, handed: Handed) -> None:
    assert handed.values is not None
    sessions = [ward.guest(handed.values) for _ in range(3)]
    with pytest.raises(pymysql.OperationalError, match="max_user_connections"):
        ward.guest(handed.values)
    for opened in sessions:
        opened.close()


def test_login_without_tls_is_refused(ward: Mariadb, handed: Handed) -> None:
    assert handed.values is not None
    user, password = handed.values["username"], handed.values["password"]
    ward.guest(handed.values).close()
    with pytest.raises(pymysql.OperationalError):
        pymysql.connect(host="127.0.0.1", port=ward.port, user=user, password=password, ssl_disabled=True)


def test_server_files_contain_no_password(ward: Mariadb, handed: Handed) -> None:
    assert handed.values is not None
    ward.ask("FLUSH BINARY LOGS")
    written = [file.read_bytes() for file in sorted((ward.folder / "data").glob("bin.0*"))]
    assert any(handed.values["username"].encode() in content for content in written), "it is the right log"
    for content in (*written, (ward.folder / "log").read_bytes()):
        assert handed.values["password"].encode() not in content


@pytest.mark.parametrize(
    "tricks",
    [
        ["SET PASSWORD = PASSWORD('another')"],
        ["SET max_statement_time = 0, wait_timeout = 31536000"],
        ["DO get_lock('mine', 10)"],
        # Prepared, a transaction outlives its session.
        ["XA START 'mine'", "SELECT * FROM {full} FOR UPDATE", "XA END 'mine'", "XA PREPARE 'mine'"],
        ["START TRANSACTION WITH CONSISTENT SNAPSHOT", "SELECT * FROM {full} FOR UPDATE"],
        ["PREPARE kept FROM 'SELECT * FROM {full}'", "EXECUTE kept"],
        ["SET autocommit = 0", "SELECT * FROM {full} LOCK IN SHARE MODE"],
    ],
)
def test_guest_cannot_prevent_its_end(world: World, ward: Mariadb, tricks: list[str]) -> None:
    signed, dataset = ward_guest(world, WARD_EVERY_ROW)
    made = world.issue(signed, dataset)
    assert made.values is not None
    opened = ward.guest(made.values)
    for trick in tricks:
        ask(opened, trick.format(full=made.values["relation"]))
    with world.database.transaction() as tx:
        ending.revoke_lease(tx, tx.get_one(Lease, made.lease.id), signed.caller, "", clock(tx))
    world.wait_sweeping(made.lease.id, "revoked")
    assert ward.traces(made.lease.id) == 0
    with pytest.raises(pymysql.Error):
        ask(opened, "SELECT 1")
    opened.close()
    # Nor does what it locked stay locked.
    with ward.admin() as admin:
        ask(admin, "SET SESSION innodb_lock_wait_timeout = 1, lock_wait_timeout = 1")
        ask(admin, "UPDATE clinic.patients SET age = age")
        ask(admin, "ALTER TABLE clinic.patients COMMENT 'free'")
        assert ask(admin, "SELECT is_free_lock('mine')") == ((1,),)


def test_slice_without_filters_shows_all_rows(world: World, ward: Mariadb) -> None:
    signed, dataset = ward_guest(world, WARD_EVERY_ROW)
    made = world.issue(signed, dataset)
    assert made.values is not None
    with ward.guest(made.values) as opened:
        assert ask(opened, f"SELECT count(*) FROM {made.values['relation']}") == ((ROWS,),)


@pytest.mark.parametrize("who", ["root", "guestkey_watch", "gk", "%", "gkx1", "", "gk_a'b", "gk_a\n", "gk_A", "gk_%"])
def test_worker_procedures_affect_only_guests(world: World, ward: Mariadb, who: str) -> None:
    before = ward.ask("SELECT Host, User, Priv FROM mysql.global_priv ORDER BY Host, User")
    with connected(world.ender.vault, "ward", "watch") as hands, pytest.raises(pymysql.Error, match="not the name"):
        ask(hands, "CALL guestkey_ops.end_guest(%s)", who)
    assert ward.ask("SELECT Host, User, Priv FROM mysql.global_priv ORDER BY Host, User") == before


def test_broker_logins_have_no_rights_over_accounts(ward: Mariadb) -> None:
    granted = {
        user: [row[0].replace("`", "") for row in ward.ask(f"SHOW GRANTS FOR guestkey_{user}@'%'")]
        for user in ("minter", "watch", "registrar")
    }
    rights = {user: {line.split(" TO ")[0] for line in lines} for user, lines in granted.items()}
    procedures = "GRANT EXECUTE ON PROCEDURE guestkey_ops"
    assert rights["minter"] == {"GRANT USAGE ON *.*", f"{procedures}.make_guest", f"{procedures}.end_guest"}
    assert rights["watch"] == {
        "GRANT USAGE ON *.*",
        *(f"{procedures}.{name}" for name in ("guests", "end_guest", "kill_guest")),
    }
    assert rights["registrar"] == {
        "GRANT USAGE ON *.*",
        "GRANT SELECT ON clinic.*",
        "GRANT SELECT, DROP, CREATE VIEW ON guestkey_slices.*",
    }
    assert ward.ask("SELECT JSON_VALUE(Priv, '$.account_locked') FROM mysql.global_priv WHERE User LIKE '%keeper'") == (
        ("1",),
    )


def test_partly_created_user_is_removed(world: World, ward: Mariadb) -> None:
    """The view is gone: the user was made, its right was refused."""
    handle = f"{world.parts.tag}-lhalf"
    with pytest.raises(pymysql.Error):
        ward.ask("CALL guestkey_ops.make_guest(%s, 'x', 'v_gone')", user_of(handle))
    assert ward.traces("lhalf") == 0
