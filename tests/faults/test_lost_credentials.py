"""Promise 2 for what was made and lost on the way: the credential itself, picked up by whoever stood there.

The answer with the credential in it is spoilt after OpenBao, or the object store, has made it. What it held is tried:
it opens its slice, or the test would prove nothing, and once the lease that stands for it has ended it does not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from pydantic import HttpUrl

from broker.base.settings import Settings
from tests.faults import proxy as faults
from tests.faults.guests import Values, each_kind, guest
from tests.faults.holding import again, ask, leases_of, nothing_astray, settle
from tests.faults.proxy import Answer, Fault, HttpProxy
from tests.support.world import World
from tests.web.conftest import Replica, apart

# Longer than anybody waits for an answer.
TOO_LATE = 6.0
FAULTS: dict[str, Fault] = {"lost": faults.lost, "cut short": faults.cut(20), "late": faults.late(TOO_LATE)}
# Of OpenBao's paths, or at the store, the one whose answer is the credential.
MADE_AT = {"postgres": "database/creds", "mariadb": "database/creds", "ssh": "ssh/sign", "x509": "pki/sign", "s3": "/"}


def of_openbao(answer: Answer) -> Values:
    """What of a credential OpenBao alone makes, by the names under which guests get it."""
    data: Mapping[str, Any] = json.loads(answer.body)["data"]
    names = {"signed_key": "certificate"}
    return {names.get(name, name): value for name, value in data.items() if isinstance(value, str)}


def of_the_store(answer: Answer) -> Values:
    """The same of AssumeRole's answer."""
    found = {one.tag.rpartition("}")[2]: one.text or "" for one in ElementTree.fromstring(answer.body).iter()}  # noqa: S314
    names = {"access_key_id": "AccessKeyId", "secret_access_key": "SecretAccessKey", "session_token": "SessionToken"}
    return {name: found[there] for name, there in names.items()}


READING: dict[str, Callable[[Answer], Values]] = {**dict.fromkeys(MADE_AT, of_openbao), "s3": of_the_store}


@pytest.fixture
def way(settings: Settings, name: str) -> Iterator[HttpProxy]:
    """What stands between the broker and whatever makes credentials of a kind."""
    there = urlsplit(
        settings.connections("s3")["objects"].endpoint_url or "" if name == "s3" else str(settings.bao_addr)
    )
    made = HttpProxy(there.hostname or "", there.port or 0)
    yield made
    made.close()


@pytest.fixture
def replica(request: pytest.FixtureRequest, settings: Settings, way: HttpProxy, name: str) -> Iterator[Replica]:
    """A replica that reaches it by that way; it knows the server of its kind."""
    for server in {"mariadb": ["ward"], "ssh": ["sftp"], "x509": ["gate"]}.get(name, []):
        request.getfixturevalue(server)
    far = settings.model_copy(deep=True)
    if name == "s3":
        far.connections("s3")["objects"].endpoint_url = way.address
    else:
        far.bao_addr = HttpUrl(way.address)
    with apart(far) as running:
        yield running


@pytest.mark.parametrize("fault", [pytest.param(f, marks=() if f == "lost" else pytest.mark.whole) for f in FAULTS])
@pytest.mark.parametrize("name", each_kind("postgres", among=lambda kind: kind.name in MADE_AT))
def test_lost_credential_is_refused_after_its_lease_ended(
    world: World, way: HttpProxy, replica: Replica, name: str, fault: str
) -> None:
    one = guest(world, name)
    # All that goes with a credential: where it is good for, and as whom.
    about = again(lambda: ask(replica.url, one)).json()["credential"]
    with way.faulty(MADE_AT[name], FAULTS[fault]):
        assert ask(replica.url, one).status_code == 503
        end = time.monotonic() + 2
        while not way.true:
            assert time.monotonic() < end
            time.sleep(0.02)
    picked_up = {**about, **READING[name](way.true[0])}
    assert picked_up != about, "another one than was handed over"
    assert len(leases_of(world, one)) == 2, "what nobody was told of is on record"
    assert one.opens(picked_up) != one.asked_about, "there is something to take back"
    for lease in settle(world, one):
        assert lease.state == ("expired" if lease.activated_at else "revoked")
    assert not one.opens(picked_up)
    nothing_astray(world)
