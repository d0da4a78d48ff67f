"""The chapters of the demo: signing in, asking, using, ending, and deciding again."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from typing import Any

import psycopg
import requests
from joserfc import jwt
from joserfc.jwk import KeySet

from broker.runtime.rulebook import SHIPPED

from .fighting import connect, refused
from .stack import DemoStack
from .story import Story, data
from .user import User

VISITS, SURVEY = "health-visits", "marriage-survey"
_COUNT = 'psql -XAtc "SELECT count(*) FROM $GUESTKEY_RELATION"'


def sign_in_everybody(story: Story, people: Mapping[str, User]) -> None:
    """Sign-in by OIDC, a second factor, the command line."""
    story.chapter("Arriving")
    ada = people["ada"]
    enrolled = ada.enrol()
    me = ada.browser.api("GET", "/me")
    codes = len(enrolled.get("recovery_codes", []))
    story.step(
        "Ada signs in by OIDC through a one-time link and adds an authenticator",
        f"signed in as {me.get('name')}, {codes} recovery codes",
        me.get("name") == "Ada Annotator" and codes == 10,
    )
    assert ada.authenticator is not None
    again = ada.browser.api(
        "POST", "/confirm/totp", {"code": f"{ada.authenticator.last_code[:3]} {ada.authenticator.last_code[3:]}"}
    )
    story.step("the same code again, spelled with a blank", again.get("detail"), again.get("code") == "wrong_code")
    for name in ("bo", "olga", "omar", "ines"):
        people[name].enrol()
    for name, somebody in people.items():
        story.ran(f"{name}: guestkey login", somebody.sign_in_terminal(), 0, "Signed in to", shows="Signed in to")


def ask_for_access(story: Story, people: Mapping[str, User]) -> str:
    """What one sees, asking, and that nobody decides about themselves. Returns the request's id."""
    story.chapter("Asking")
    ada, bo = people["ada"], people["bo"]
    story.ran("Ada lists the datasets", ada.run("dataset", "list"), 0, SURVEY)
    seen = bo.run("dataset", "list").out
    story.step("Bo's vendor is offered one of them", seen, VISITS in seen and SURVEY not in seen)
    hidden, absent = bo.run("dataset", "show", SURVEY), bo.run("dataset", "show", "nonesuch")
    same = hidden.code == absent.code == 6 and hidden.err == absent.err
    story.step("to Bo the other one reads like one that does not exist", hidden.err, same)
    story.ran("Ada asks why she cannot read yet", ada.run("why", VISITS), 3, "✕", shows="✕")
    story.ran("Ada tries it anyway", ada.run("get", VISITS, "--kind", "postgres"), 3, "✕", shows="Error")
    words = ["--role", "annotator", "--purpose", "Label the March visits", "--period", "7d", "--json"]
    asked = data(ada.run("request", "new", VISITS, *words))
    request_id = str(asked.get("id"))
    story.step("Ada asks for the role annotator", f"{request_id} {asked.get('state')}", asked.get("state") == "pending")
    story.ran("Ada approves her own request", ada.run("request", "approve", request_id), 3, "Error", shows="  ")
    return request_id


def approve_request(story: Story, olga: User, laptop: User, request_id: str) -> None:
    """Olga approves from another computer: a second factor belongs to a session, not to a person."""
    laptop.browser.sign_in()
    laptop.authenticator = olga.authenticator
    story.ran("Olga signs in on another computer", laptop.sign_in_terminal(), 0, "Signed in to", shows="Signed in to")
    approve = ("request", "approve", request_id, "--max-lifetime", "10m")
    story.ran("Olga approves there, without a second factor", laptop.run(*approve), 5, "second factor", shows="Error")
    story.ran("Olga proves her second factor", laptop.confirm(), 0, "Confirmed")
    shown = laptop.run("request", "show", request_id)
    story.ran("Olga sees the facts beside the request", shown, 0, "may decide\tyes", shows="not met now|rules")
    story.ran("Olga approves, for credentials of ten minutes", laptop.run(*approve), 0, "approved")


def read_the_slice(story: Story, people: Mapping[str, User]) -> None:
    """Reading exactly the slice, with the real psql."""
    story.chapter("Using")
    ada = people["ada"]
    story.ran(
        "Ada counts the rows with psql",
        ada.run("run", VISITS, "--", "sh", "-c", _COUNT),
        0,
        r"^\d{4,}\n",
        shows=r"^\d+$",
    )
    for told, query, refusal in (
        ("the table behind the slice", "SELECT * FROM example.visits", "permission denied for schema example"),
        (
            "a column that is not in the slice",
            "SELECT lncoins FROM '\"$GUESTKEY_RELATION\"'",
            'column "lncoins" does not exist',
        ),
        (
            "writing through the view",
            "DELETE FROM '\"$GUESTKEY_RELATION\"'",
            "permission denied for view|cannot delete from view",
        ),
        ("a table of her own", "CREATE TEMP TABLE mine (a int)", "guests define nothing in this database"),
        ("becoming another role", "SET ROLE guestkey_minter", "permission denied to set role"),
    ):
        ran = ada.run("run", VISITS, "--", "sh", "-c", f"psql -XAtc '{query}'")
        story.ran(f"Ada tries {told}", ran, 1, refusal)
    story.ran("each lease was ended with its program", ada.run("lease", "list"), 0, "revoked", shows="revoked")
    signed = ada.run("get", VISITS, "--kind", "token", "--field", "access_token")
    claims = _verified(people["ada"].browser.portal, signed.out.strip())
    story.step(
        "Ada gets a signed token; its key verifies it",
        f"aud {claims.get('aud')}, slice {claims.get('slice')}",
        claims.get("slice") == "deidentified",
    )


def end_credentials(story: Story, people: Mapping[str, User], stack: DemoStack) -> None:
    """Revoking and expiring, open sessions included."""
    story.chapter("Ending")
    ada = people["ada"]
    handed = data(ada.run("get", VISITS, "--kind", "postgres", "--json"))
    lease_id = handed["lease"]["id"]
    with connect(handed["credential"]) as session:
        row = session.execute("SELECT current_user").fetchone()
        story.step(
            "Ada opens a session by hand",
            f"current_user {row and row[0]}",
            bool(row and str(row[0]).endswith(lease_id)),
        )
        story.ran("Ada revokes the lease", ada.run("lease", "revoke", lease_id), 0, "the backend confirmed it")
        story.step("the open session", *refused(lambda: session.execute("SELECT 1"), "terminating connection|closed"))
    story.step(
        "signing in to PostgreSQL again", *refused(lambda: connect(handed["credential"]), "authentication failed")
    )
    short = data(ada.run("get", VISITS, "--kind", "postgres", "--for", "3s", "--json"))
    with connect(short["credential"]) as session:
        began = time.monotonic()
        said, ended = refused(lambda: _read_for(session, 15), "terminating connection|closed")
        story.step(f"a lease of 3 s ended an open session after {time.monotonic() - began:.1f} s", said, ended)
    story.ran("the lease says so", ada.run("lease", "show", short["lease"]["id"]), 0, "expired", shows="confirmed by")
    with stack.frozen("openbao"):
        stuck = ada.run("get", VISITS, "--kind", "postgres")
        story.ran(f"OpenBao frozen: denied after {stuck.seconds:.1f} s", stuck, 8, "Error", shows="Error")
    story.step("OpenBao thawed: it works again by itself", *_works_again(ada))


def change_rules_and_suspend(story: Story, people: Mapping[str, User], stack: DemoStack) -> None:
    """Rules change by two admins, and living credentials with them; a vendor is suspended."""
    story.chapter("Deciding again")
    ada, olga, omar, ines = (people[name] for name in ("ada", "olga", "omar", "ines"))
    folder = stack.state / "policies"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    rules = (folder / "rules.csv").read_text()
    (folder / "rules.csv").write_text(
        re.sub(r"^role:annotator, label:classification:internal,.*\n", "", rules, flags=re.M)
    )
    lease_id = data(ada.run("get", VISITS, "--kind", "postgres", "--json"))["lease"]["id"]
    proposed = data(olga.run("policy", "apply", str(folder), "--json"))
    proposal, removed = str(proposed.get("id")), proposed.get("removed") or ["nothing"]
    story.step("Olga proposes to take that rule away", f"removed: {removed[0]}", proposed.get("state") == "pending")
    story.ran("Olga approves her own proposal", olga.run("proposal", "approve", proposal), 3, "Error", shows="Error")
    omar.confirm()
    story.ran("Omar, the second admin, approves it", omar.run("proposal", "approve", proposal), 0, "approved")
    story.ran("the very next decision about Ada", ada.run("why", VISITS), 3, "✕", shows="✕")
    began = time.monotonic()
    state = _wait_for_end(ada, lease_id)
    story.step(f"her living credential ended after {time.monotonic() - began:.0f} s", state, state == "revoked")
    vendor = ada.browser.api("GET", "/me")["vendor"]
    olga.confirm()
    story.ran(
        "Olga suspends Ada's vendor",
        olga.run("vendor", "suspend", vendor, "--reason", "the contract ended"),
        0,
        "suspended",
    )
    story.ran("Ada at the next request", ada.run("whoami"), 4, "Error", shows="Error")
    audit = ines.run("audit", "list", "--limit", "1000")
    kinds = {line.split("\t")[1] for line in audit.out.splitlines()}
    wanted = {
        "decision.denied",
        "decision.allowed",
        "lease.issued",
        "lease.revoked",
        "lease.expired",
        "policy.applied",
        "vendor.suspended",
    }
    story.step(
        "Ines, the auditor, finds all of it",
        f"{len(audit.out.splitlines())} events: {', '.join(sorted(kinds))}",
        wanted <= kinds,
    )


def _verified(portal: str, token: str) -> dict[str, Any]:
    keys = requests.get(f"{portal}/.well-known/jwks.json", timeout=10).json()
    return dict(jwt.decode(token, KeySet.import_key_set(keys), algorithms=["ES256"]).claims)


def _read_for(session: psycopg.Connection[Any], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session.execute("SELECT 1")
        time.sleep(0.05)


def _works_again(ada: User) -> tuple[str, bool]:
    end = time.monotonic() + 30
    while True:
        ran = ada.run("run", VISITS, "--", "sh", "-c", _COUNT)
        if ran.code == 0 or time.monotonic() > end:
            return f"{ran.out} rows" if ran.code == 0 else ran.err, ran.code == 0
        time.sleep(0.5)


def _wait_for_end(ada: User, lease_id: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = str(data(ada.run("lease", "show", lease_id, "--json")).get("state"))
        if state in {"revoked", "expired"}:
            return state
        time.sleep(0.3)
    return "still living after 60 s"
