"""For each kind, a guest for whom everything holds, and whether what such a guest was handed still opens anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from broker.credentials import kinds
from broker.credentials.base import Kind
from broker.models import Dataset, Grant
from broker.oauth.signed import claims_of_live
from tests.credentials import test_contract
from tests.credentials.contract import KindContract
from tests.support.world import Signed, World


@dataclass(frozen=True)
class Guest:
    """Somebody with a grant on a dataset that is served as a kind; `asks` goes into the request beside the dataset."""

    kind: Kind
    signed: Signed
    dataset: Dataset
    grant: Grant
    asks: Mapping[str, Any] = field(default_factory=dict)

    def body(self, **more: Any) -> dict[str, Any]:
        """What is posted to `/leases`."""
        return {"dataset": self.dataset.slug, "slice": "deidentified", "kind": self.kind.name, **self.asks, **more}


def each_kind(short: str, *, among: Callable[[Kind], bool] = lambda kind: True) -> list[Any]:
    """Names of kinds to try something with: one in the short form, all of them in the whole."""
    names = sorted(name for name, kind in kinds.items() if among(kind))
    return [pytest.param(name, marks=() if name == short else pytest.mark.whole) for name in names]


def guest(world: World, name: str) -> Guest:
    """A guest of a kind, new in everything."""
    return _MAKING.get(name, _of_the_clinic)(world, kinds[name])


def opens(world: World, name: str, values: Mapping[str, str]) -> bool:
    """Whether a credential opens its slice now, asked of whoever guards it."""
    if name == "token":
        return _introspected(world, values["access_token"])
    return _CONTRACTS[name]().works(world, values)


def _of_the_clinic(world: World, kind: Kind) -> Guest:
    return Guest(kind, *world.guest())


def _introspected(world: World, token: str) -> bool:
    # The address of the replica that signed is whatever port it had.
    payload = token.split(".")[1]
    issuer = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["iss"]
    return claims_of_live(world.parts, issuer, token) is not None


_MAKING: dict[str, Callable[[World, Kind], Guest]] = {}
_CONTRACTS: dict[str, type[KindContract]] = {
    contract.name: contract
    for contract in vars(test_contract).values()
    if isinstance(contract, type) and issubclass(contract, KindContract) and contract is not KindContract
}
