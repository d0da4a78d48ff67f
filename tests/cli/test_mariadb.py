"""MariaDB at the command line: its own program opens a fresh lease by an option file, on the real server."""

from __future__ import annotations

import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from pymysql.optionfile import Parser

from broker.kinds.mariadb.client import option_file
from guestkey.cli.faults import Fault
from tests.cli.conftest import TerminalOf
from tests.support.data import BERLIN
from tests.support.mariadb import WARD_DEIDENTIFIED, Mariadb
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("worker")
VALUES = {"host": "db", "port": "3306", "username": "gk_x", "password": "a#b c\\d", "relation": "s.v"}


def test_server_values_cannot_inject_mariadb_options() -> None:
    text = option_file(VALUES)
    assert 'password="a#b c\\\\d"' in text and "\nssl-verify-server-cert\n" in text
    for bad in ("a\nskip-ssl", 'a"b', ""):
        with pytest.raises(Fault, match="is not valid"):
            option_file(VALUES | {"host": bad})


@pytest.mark.parametrize("ssl", ["verify", "off"])
def test_option_file_is_readable_by_other_programs(tmp_path: Path, ssl: str) -> None:
    """MariaDB's own, PyMySQL, and MySQL's connector: that takes quotation marks for a part of a password."""
    password, ca = "A1a-aB3dE5fG7hJ9kL2m", "/home/ines/my keys #1/ca.pem"
    file = tmp_path / "my.cnf"
    file.write_text(option_file(VALUES | {"password": password, "ssl_ca": ca, "ssl": ssl}))
    shown = subprocess.run(
        ["my_print_defaults", f"--defaults-file={file}", "client"], capture_output=True, text=True, check=True
    )
    tls = "--ssl-verify-server-cert" if ssl == "verify" else "--skip-ssl"
    own = ["--protocol=tcp", "--host=db", "--port=3306", "--user=gk_x", f"--password={password}", f"--ssl-ca={ca}"]
    assert shown.stdout.splitlines() == [*own, tls]
    read = Parser()
    read.read(file)
    names = {"host": "db", "port": "3306", "user": "gk_x", "password": password, "ssl-ca": ca}
    assert {name: read.get("client", name) for name in names} == names
    lines = file.read_text().splitlines()
    assert f"password={password}" in lines and "port=3306" in lines
    # Any option the connector does not know is an error in the section that is its own.
    own_section = lines[lines.index("[connector_python]") + 1 :]
    verified = ["ssl_verify_cert=True", "ssl_verify_identity=True"]
    assert own_section == (verified if ssl == "verify" else ["ssl_disabled=True"])


def test_connect_opens_mariadb_and_ends_the_lease(
    world: World, ward: Mariadb, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="mariadb", slices={"deidentified": WARD_DEIDENTIFIED})
    world.grant(dataset, signed)
    terminal = terminal_of(signed)
    (tmp_path / "runtime").mkdir(mode=0o700)
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
    ran = terminal.run("connect", dataset.slug, stdin="SELECT CURRENT_USER(); SHOW TABLES;\n", **runtime)
    assert ran.code == 0, ran.err
    user = next(line.partition("@")[0] for line in ran.out.splitlines() if line.startswith("gk_"))
    assert "You can read " in ran.err and "the backend confirmed it" in ran.err
    assert ward.traces(user.split("_", 2)[2]) == 0
    assert not list((tmp_path / "runtime").iterdir())
    count = 'mariadb --defaults-file="$GUESTKEY_OPTION_FILE" -N -e "SELECT count(*) FROM $GUESTKEY_RELATION"'
    counted = terminal.run("run", dataset.slug, "--", "sh", "-c", count, **runtime)
    assert (counted.code, counted.out) == (0, f"{BERLIN}\n"), counted.err


def test_my_cnf_format_works_with_mariadb_programs(
    world: World, ward: Mariadb, terminal_of: TerminalOf, tmp_path: Path
) -> None:
    vendor = world.vendor()
    signed = world.person(vendor)
    dataset = world.dataset(vendor, kind="mariadb", slices={"deidentified": WARD_DEIDENTIFIED})
    world.grant(dataset, signed)
    file = tmp_path / "my.cnf"
    ran = terminal_of(signed).run("get", dataset.slug, "--kind", "mariadb", "--format", "my-cnf", "--out", str(file))
    assert (ran.code, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600), ran.err
    assert str(ward.ca_file) not in file.read_text(), "the broker's path would be of no use to a guest"
    told = next(line for line in ran.err.splitlines() if line.startswith("Use it: "))
    seen = subprocess.run(
        [*shlex.split(told.removeprefix("Use it: ")), "-N", "-e", "SELECT CURRENT_USER()"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.startswith("gk_")
