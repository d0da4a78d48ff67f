"""`/kinds`: the kinds of credentials here, and how honestly each says it ends."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from broker.base.errors import NotFound
from broker.identity.caller import Caller
from broker.identity.http import current_caller
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.web.api.common import WindowNow
from broker.web.validation import Shown

router = APIRouter(prefix="/kinds", tags=["kinds"])


class EndingShown(Shown):
    """How credentials of a kind end. Seconds are upper bounds while every backend answers."""

    how: str
    new_sessions: int
    open_sessions: int
    worst_case: int | None


class ProofShown(Shown):
    """What a guest sends as `public_key` for a credential of this kind, and how it is made."""

    name: str
    label: str
    how: str


class KindShown(Shown):
    """One kind. With a `proof`, its secret is the guest's own private key, which never leaves the guest."""

    name: str
    about: str
    actions: list[str]
    renewable: bool
    proof: ProofShown | None
    ending: EndingShown


class Kinds(Shown):
    """All kinds."""

    items: list[KindShown]
    next_cursor: None = None


@router.get("", operation_id="list_kinds")
def list_kinds(_caller: Annotated[Caller, Depends(current_caller)], window: WindowNow) -> Kinds:
    """Every kind of credential this installation can issue; they fit one page."""
    return Kinds(items=[kind_shown(kind) for kind in kinds.values()][: window.limit])


@router.get("/{name}", operation_id="show_kind")
def show_kind(name: str, _caller: Annotated[Caller, Depends(current_caller)]) -> KindShown:
    """One kind of credential."""
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise NotFound("There is no such kind of credential.", advice=f"There are: {known}.")
    return kind_shown(kinds[name])


def kind_shown(kind: Kind) -> KindShown:
    """A kind, as answered."""
    ending = EndingShown.model_validate(kind.ending)
    return KindShown(
        name=kind.name,
        about=kind.use.about,
        actions=sorted(kind.actions),
        renewable=kind.renewable,
        proof=ProofShown.model_validate(kind.proof) if kind.proof else None,
        ending=ending,
    )
