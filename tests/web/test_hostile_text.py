"""Every text that a caller of the API may write: what hides is refused with a reason, what is markup is shown as text.

The fields are those of the API's own description, so that a new one is tried or the table is wrong.
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from typing import Any

import httpx
from sqlalchemy import select

from broker.base.database import clock
from broker.identity import sessions
from broker.identity.http import SESSION_COOKIE
from broker.models import EventPersonal, Person
from tests.support.provider import Provider
from tests.support.world import DEIDENTIFIED, World
from tests.web.conftest import ClientOf, Replica

# A right-to-left override is tried in every field; of the rest, by turns, one.
OVERRIDE = "\u202e"
BY_TURNS = ("\u0000", "\u200b", "\u0007", "\u001b", "\u0378")
# Objects whose keys the description leaves open, and a key to try in each.
OPEN = {"binding": "table", "credential": "id", "passkey": "id", "required_claims": "hd", "topics": "own_grants"}
# Never shown: kept wrapped and handed to the provider as it is, or an id of which nothing is kept if nothing has it.
UNSEEN = {("propose_source", "client_secret"), ("confirm_grants", "grants/0"), ("confirm_grants", "vendor")}
# What a later step replaced.
WRITTEN_OVER = {"add_dataset title", "add_dataset description"}


@dataclass(frozen=True)
class Step:
    """One operation. `text`: what people read of it, which may hold markup; every other field is of a fixed form.

    `before`: what makes a comment of it.
    """

    operation: str
    who: str
    path: str
    body: Mapping[str, Any]
    text: tuple[str, ...] = ()
    done: bool = True
    before: Mapping[str, str] = field(default_factory=dict)


REASON: dict[str, Any] = {"reason": "as agreed"}
RULE = "role:annotator, label:classification:internal, deidentified, read, mfa<=15m ttl<=1h, allow"
COMMENTED = {"rules": f"{RULE}\n# ", "networks": "# "}
STEPS = (
    Step("confirm_totp", "guest", "confirm/totp", {}),
    Step("confirm_passkey", "guest", "confirm/passkey", {}),
    Step("begin_totp", "guest", "factors/totp", {}),
    Step("remove_totp", "guest", "factors/totp/remove", {}),
    Step("begin_passkey", "guest", "factors/passkeys/options", {}),
    Step("remove_passkey", "guest", "factors/passkeys/{guest}/remove", {}),
    Step("replace_recovery_codes", "guest", "factors/recovery-codes", {}),
    Step("confirm_totp_enrolment", "guest", "factors/totp/confirm", {}),
    Step("add_passkey", "guest", "factors/passkeys", {"credential": {}}),
    Step("use_recovery_code", "guest", "factors/recover", {}),
    Step("open_enrolment", "guest", "factors/enrolment", {}),
    Step("add_vendor", "admin", "vendors", {}, ("name",)),
    Step("activate_vendor", "admin", "vendors/{new_vendor}/activate", REASON, ("reason",)),
    Step("add_team", "lead", "teams", {"vendor": "{vendor}"}, ("name",)),
    Step("make_service", "admin", "services", {"vendor": "{vendor}"}, ("name",)),
    Step("suspend_service", "admin", "services/{service}/suspend", REASON, ("reason",)),
    Step("resume_service", "admin", "services/{service}/resume", REASON, ("reason",)),
    Step("invite", "admin", "invitations", {"source": "{source}"}, ("label",)),
    Step(
        "propose_source",
        "admin",
        "sources",
        {"issuer": "{issuer}", "client_id": "guestkey", "required_claims": {"hd": "a.example"}},
        ("name", "client_id", "other_audiences/0", "required_claims/hd"),
    ),
    Step("propose_trust_mfa", "admin", "sources/{source}/trust-mfa", {"values": ["phr"]}, ("values/0",)),
    Step("refuse_proposal", "other", "proposals/{propose_source}/refuse", REASON, ("reason",)),
    Step(
        "add_dataset",
        "admin",
        "datasets",
        {"slug": "{slug}", "labels": ["classification:internal"], "owner": "{owner}"},
        ("title", "description"),
    ),
    Step("change_dataset", "owner", "datasets/{slug}", {}, ("title", "description")),
    Step(
        "add_slice",
        "admin",
        "datasets/{slug}/slices",
        # A table of its own: another dataset over it with stricter labels would make this an act for two.
        {"name": "deidentified", "binding": DEIDENTIFIED | {"table": "only_here"}},
        ("description",),
    ),
    Step("repair_slice", "admin", "datasets/{slug}/slices/deidentified/binding", {"binding": DEIDENTIFIED}),
    Step("make_offer", "owner", "datasets/{slug}/offers", {"vendor": "{vendor}"}),
    Step("ask", "guest", "requests", {"dataset": "{trials}", "role": "trainer", "period": 3600}, ("purpose",)),
    Step(
        "give_grant",
        "owner",
        "grants",
        {"dataset": "{trials}", "role": "evaluator", "person": "{guest}", "until": "{until}"},
        ("purpose",),
    ),
    Step("refuse_person", "lead", "people/{joined}/refuse", REASON, ("reason",)),
    Step("approve_request", "owner", "requests/{ask}/approve", {}),
    Step("refuse_request", "owner", "requests/{ask}/refuse", REASON, ("reason",)),
    Step("issue", "guest", "leases", {"dataset": "{trials}", "slice": "deidentified"}),
    Step("revoke_lease", "guest", "leases/{lease}/revoke", {}, ("reason",)),
    Step("revoke_grant", "owner", "grants/{grant}/revoke", REASON, ("reason",)),
    Step("suspend_person", "admin", "people/{guest}/suspend", REASON, ("reason", "message")),
    Step("resume_person", "admin", "people/{guest}/resume", REASON, ("reason",)),
    Step("retire_slice", "admin", "datasets/{slug}/slices/deidentified/retire", REASON, ("reason",), done=False),
    Step("suspend_dataset", "owner", "datasets/{slug}/suspend", REASON, ("reason", "message")),
    Step("resume_dataset", "owner", "datasets/{slug}/resume", REASON, ("reason",)),
    Step("retire_dataset", "admin", "datasets/{slug}/retire", REASON, ("reason",)),
    Step("check_policy", "admin", "policy/check", {}, ("rules", "networks"), False, COMMENTED),
    Step("propose_policy", "admin", "policy/proposals", {}, ("rules", "networks"), False, COMMENTED),
    # Done, it would end what all other tests hold.
    Step("close_installation", "admin", "installation/close", REASON, ("reason",), done=False),
    Step("open_installation", "admin", "installation/open", REASON, ("reason",), done=False),
    Step("read_notices", "lead", "notices/read", {}),
    Step("change_notice_choices", "admin", "notices/choices", {}),
    Step(
        "bind_notice_channel",
        "admin",
        "notice-channels",
        {"kind": "webhook", "target": "https://hooks.example.org/", "topics": ["emergency"]},
        ("name",),
    ),
    Step("suspend_vendor", "admin", "vendors/{vendor}/suspend", REASON, ("reason", "message")),
    Step("resume_vendor", "admin", "vendors/{vendor}/resume", REASON, ("reason",)),
    Step("offboard_vendor", "admin", "vendors/{vendor}/offboard", REASON, ("reason",)),
)


def described(replica: Replica) -> dict[str, set[str]]:
    """The free text that each operation takes, by the API's own description; closed words and times are none."""
    api, found = replica.app.openapi(), dict[str, set[str]]()
    for of_path in api["paths"].values():
        for operation in of_path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            texts = set(_texts(api, body["schema"], "")) if body else set()
            if texts := {at for at in texts if (operation["operationId"], at) not in UNSEEN}:
                found[operation["operationId"]] = texts
    return found


def _texts(api: dict[str, Any], schema: dict[str, Any], at: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("anyOf", []):
        yield from _texts(api, choice, at)
    if schema.get("type") == "string" and not {"enum", "const", "format"} & schema.keys():
        yield at
    for name, inner in schema.get("properties", {}).items():
        yield from _texts(api, inner, f"{at}/{name}".removeprefix("/"))
    if "items" in schema:
        yield from _texts(api, schema["items"], f"{at}/0")
    further = schema.get("additionalProperties")
    if further is True or (further and any(_texts(api, further, at))):
        yield f"{at}/{OPEN[at]}"


def with_text(body: Mapping[str, Any], at: str, text: str) -> dict[str, Any]:
    """The body with one text in it changed."""
    name, _, inner = at.partition("/")
    if not inner:
        return dict(body) | {name: text}
    return dict(body) | {name: [text] if inner == "0" else dict(body.get(name, {})) | {inner: text}}


@dataclass
class Scene:
    """Who acts, the ids of what they act on, and what was written of which field."""

    world: World
    replica: Replica
    client_of: ClientOf
    provider: Provider
    clients: dict[str, httpx.Client] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """A vendor with a lead and a guest, who holds a lease; a dataset of an owner; two admins."""
        world = self.world
        # One that takes any client, whatever it is called.
        self.provider.answers["/token"] = lambda: (400, {}, b'{"error": "invalid_grant"}')
        vendor, owner = world.vendor(), world.person()
        guest, trials = world.person(vendor), world.dataset(vendor, owner=owner)
        people = {
            "admin": world.person(roles=("admin",)),
            "other": world.person(roles=("admin",)),
            "owner": owner,
            "lead": world.person(vendor, roles=("lead",)),
            "guest": guest,
        }
        self.clients = {name: self.client_of(signed) for name, signed in people.items()}
        self.ids = {
            "vendor": vendor.id,
            "issuer": self.provider.issuer,
            "until": (world.now() + timedelta(days=9)).date().isoformat(),
            "joined": world.person(vendor, status="pending").id,
            "new_vendor": world.vendor("onboarding").id,
            "source": world.source(vendor).id,
            "service": world.service(vendor).id,
            "slug": f"hostile-{secrets.token_hex(4)}",
            "trials": trials.slug,
            "trials_id": trials.id,
            "grant": world.grant(trials, guest).id,
            "lease": world.issue(guest, trials).lease.id,
            **{name: signed.id for name, signed in people.items()},
        }

    def send(self, step: Step, body: Mapping[str, Any]) -> httpx.Response:
        """The step with this body, its ids filled in."""
        method = "PATCH" if step.operation.startswith("change_dataset") else "POST"
        filled = {
            name: value.format_map(self.ids) if isinstance(value, str) and value.startswith("{") else value
            for name, value in body.items()
        }
        return self.clients[step.who].request(method, f"/{step.path.format_map(self.ids)}", json=filled)

    def refused(self, step: Step, at: str, text: str) -> None:
        """The step is refused for this text, with a reason that does not repeat it."""
        body: Mapping[str, Any] = step.body
        for name in step.text:
            body = with_text(body, name, step.before.get(name, "") + "plain")
        answer = self.send(step, with_text(body, at, step.before.get(at, "") + text))
        assert 400 <= answer.status_code < 500, (step.operation, at, text, answer.status_code, answer.text)
        problem = answer.json()
        assert problem["detail"] and problem["code"]
        about = [error["pointer"].strip("/") for error in problem.get("errors", [])]
        assert not about or any(at.startswith(pointer) for pointer in about), (step.operation, at, answer.text)
        said = " ".join(
            [problem["detail"], problem.get("advice", ""), *(e["detail"] for e in problem.get("errors", []))]
        )
        assert not set(said) & {OVERRIDE, *BY_TURNS}, (step.operation, at, said)

    def done(self, step: Step) -> None:
        """The step with markup in all its text, each of its own so that it is found again."""
        body: Mapping[str, Any] = step.body
        for at in step.text:
            mark = f"<script>{step.operation}/{at}/{secrets.token_hex(3)}</script>"
            self.written[f"{step.operation} {at}"] = mark
            body = with_text(body, at, mark)
        answer = self.send(step, body)
        assert answer.status_code < 300, (step.operation, answer.text)
        made = answer.json()
        self.ids[step.operation] = made.get("suspension") or made.get("id", "")

    def pages(self) -> str:
        """The pages an admin sees of all this, one after the other."""
        with self.world.database.transaction() as tx:
            person = tx.get_one(Person, self.ids["other"])
            told = select(EventPersonal.event_id).where(EventPersonal.value.in_(self.written.values()))
            events = [f"events/{event}" for event in tx.scalars(told)]
            cookie = sessions.start(tx, person, source_id=person.source_id, lifetime=3600, now=clock(tx))
        with httpx.Client(base_url=self.replica.url, headers={"Cookie": f"{SESSION_COOKIE}={cookie}"}) as browser:
            answers = [browser.get(f"/{page.format_map(self.ids)}") for page in (*PAGES, *events)]
        assert {answer.status_code for answer in answers} == {200}, [answer.url for answer in answers]
        return "\n".join(answer.text for answer in answers)


PAGES = (
    "vendors",
    "vendors/{vendor}",
    "vendors/{new_vendor}",
    "teams/{add_team}",
    "services",
    "invite",
    "people/{guest}",
    "datasets/{slug}",
    "datasets/{slug}/slices",
    "requests/{ask}",
    "grants/{grant}",
    "leases/{lease}",
    "proposals/{propose_source}",
    "proposals/{propose_trust_mfa}",
    "suspensions/{suspend_vendor}",
    "suspensions/{suspend_person}",
    "suspensions/{suspend_dataset}",
    "events",
    "settings/notices",
)


def test_every_operation_with_text_input_is_tested(replica: Replica) -> None:
    assert sorted(step.operation for step in STEPS) == sorted(described(replica))


def test_hidden_characters_are_refused_and_markup_is_escaped(
    world: World, replica: Replica, client_of: ClientOf, provider: Provider
) -> None:
    scene, texts, turn = Scene(world, replica, client_of, provider), described(replica), cycle(BY_TURNS)
    for step in STEPS:
        for at in sorted(texts[step.operation]):
            for character in (OVERRIDE, next(turn)):
                scene.refused(step, at, f"a{character}b")
            if at not in step.text:
                scene.refused(step, at, "<script>alert(1)</script>")
        if step.text and step.done:
            scene.done(step)
    shown = scene.pages()
    assert not [at for at, mark in scene.written.items() if mark in shown]
    unseen = {at for at, mark in scene.written.items() if html.escape(mark) not in shown}
    assert unseen == WRITTEN_OVER
