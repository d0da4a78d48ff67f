"""`/kinds`: the kinds of credentials here, and how honestly each says it ends."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from broker.caller import Caller
from broker.credentials import kinds
from broker.credentials.base import Kind
from broker.identity.http import current_caller
from broker.web.validation import Shown

router = APIRouter(prefix="/kinds", tags=["kinds"])


class EndingShown(Shown):
    """How credentials of a kind end. Seconds are upper bounds while every backend answers."""

    how: str
    new_sessions: int
    open_sessions: int
    worst_case: int | None


class KindShown(Shown):
    """One kind."""

    name: str
    actions: list[str]
    ending: EndingShown


class Kinds(Shown):
    """All kinds."""

    items: list[KindShown]
    next_cursor: None = None


@router.get("", operation_id="list_kinds")
def list_kinds(_caller: Annotated[Caller, Depends(current_caller)]) -> Kinds:
    """Every kind of credential this installation can issue."""
    return Kinds(items=[kind_shown(kind) for kind in kinds.values()])


def kind_shown(kind: Kind) -> KindShown:
    """A kind, as answered."""
    ending = EndingShown.model_validate(kind.ending)
    return KindShown(name=kind.name, actions=sorted(kind.actions), ending=ending)
