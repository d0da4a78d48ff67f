"""The tables of docs/second-factor.md, and somebody with two factors on whom their lines are tried."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
from sqlalchemy import select

from broker.identity.secret_tokens import digest
from broker.models import ApiToken, Notice, Passkey, TotpFactor
from tests.identity.conftest import Ada
from tests.support.authenticator import Authenticator
from tests.support.browser import Browser

ROOT = Path(__file__).parents[2]
# Where factors and their freshness are at home: whatever changes something there stands in the table.
OF_FACTORS = re.compile(r"/(api/v1/)?(factors|confirm|security)(/|$)|/api/v1/people/\{person_id\}/(reset|enrol)")
NO_FACTOR = {"POST /security/sessions/{holder_id}/end", "POST /security/notices"}


def table(heading: str) -> dict[str, list[str]]:
    """The lines of one table of the document: the way, and its other cells."""
    section = (ROOT / "docs" / "second-factor.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


CHANGES = table("Changing factors")
FRESHNESS = table("Freshness, and windows opened by others")


class Owner:
    """Ada with an app and a passkey, her factor fresh in her browser, and a fresh command line."""

    def __init__(self, ada: Ada) -> None:
        self.ada, self.browser, self.world = ada, ada.browser, ada.door.world
        self.device = Authenticator(ada.browser.url)
        options = ada.browser.api("POST", "/factors/passkeys/options", {"code": ada.code()}).json()
        added = ada.browser.api("POST", "/factors/passkeys", {"credential": self.device.make(options), "name": "x"})
        assert added.status_code == 201, added.text
        ada.forget()
        self.token = ada.token()
        self.world.change(ApiToken, self.token_id, factor_at=self.world.now(), factor_method="totp")

    @property
    def token_id(self) -> str:
        """The id of the command line's token."""
        given = self.token._always["Authorization"].removeprefix("Bearer ")
        with self.world.database.transaction() as tx:
            return tx.scalars(select(ApiToken.id).where(ApiToken.token_hash == digest(given))).one()

    def passkey_id(self) -> str:
        """The id of her passkey."""
        with self.world.database.transaction() as tx:
            return tx.scalars(select(Passkey.id).where(Passkey.person_id == self.ada.id)).one()

    def held(self) -> tuple[object, ...]:
        """All that a change could change."""
        with self.world.database.transaction() as tx:
            app = tx.scalars(select(TotpFactor.wrapped_secret).where(TotpFactor.person_id == self.ada.id)).all()
            keys = tx.scalars(select(Passkey.id).where(Passkey.person_id == self.ada.id)).all()
        codes = self.browser.api("GET", "/factors").json()["recovery_codes_left"]
        return (*app, *sorted(keys), codes)

    def send(self, way: str, browser: Browser, **body: object) -> httpx.Response:
        """Send the way's request: JSON to the API, a form to the portal."""
        method, _, path = way.partition(" ")
        path = path.replace("{passkey_id}", self.passkey_id())
        if path.startswith("/api/v1"):
            return browser.request(method, path, json=body)
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
        headers = {"Accept": "text/html"}
        return browser.request(method, path, data={"csrf_token": browser.csrf, **form}, headers=headers)

    def needed(self, way: str, code: str) -> dict[str, object]:
        """The fields without which the request is not even read, or which a thief would fill."""
        fields: dict[str, object] = {"code": code} if code else {}
        if way.endswith("/factors/passkeys"):
            fields = {"credential": {}, "name": "x"}
        elif way.endswith("/factors/enrolment"):
            fields = {"token": "x" * 43}
        elif way.endswith("/security/passkeys"):
            fields = {"passkey": "{}", "name": "x"}
        elif way.endswith("/security/recover"):
            fields = {"recovery_code": code or "x"}
        elif way.endswith(("/confirm", "/recover")):
            fields = {"code": code or "aaaaa-bbbbb-ccccc-ddddd"}
        return fields


def told(owner: Owner) -> list[str]:
    """The kinds of what she is told of since her factors were set up."""
    with owner.world.database.transaction() as tx:
        kinds = tx.scalars(select(Notice.kind).where(Notice.subject == owner.ada.id).order_by(Notice.id)).all()
    # Adding the app and then the passkey.
    assert list(kinds[:2]) == ["factor.enrolled"] * 2
    return list(kinds[2:])
