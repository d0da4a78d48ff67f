"""`/kinds`: the kinds of credentials here, and how honestly each says it ends."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from broker.base.errors import NotFound
from broker.base.paging import Whole
from broker.identity.http import current_caller
from broker.identity.nouns import Display
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import Proof
from broker.web.api.common import Shown, WindowNow

router = APIRouter(prefix="/kinds", tags=["kinds"])


class EndingShown(Shown):
    """How credentials of a kind end. Seconds are upper bounds while every backend answers."""

    how: str
    new_sessions: int
    open_sessions: int
    worst_case: int | None


class KindShown(Shown):
    """One kind. With a `proof`, its secret is the guest's own private key, which never leaves the guest."""

    name: str
    about: str
    actions: list[str]
    renewable: bool
    proof: Proof | None
    ending: EndingShown


_DISPLAY = Display(
    columns=(
        "name!, about!, actions, new refused within=ending.new_sessions#, "
        "open ended within=ending.open_sessions#, worst case=ending.worst_case#"
    ),
    none="No kinds of credentials.",
    details=(
        "name, about, actions, renewable, you bring=proof.label, made by=proof.how, how it ends=ending.how, "
        "new sessions refused within=ending.new_sessions#, open sessions ended within=ending.open_sessions#, "
        "worst exposure=ending.worst_case#"
    ),
    key="name",
)


@router.get(
    "", operation_id="list_kinds", dependencies=[Depends(current_caller)], openapi_extra=_DISPLAY.described("kind")
)
def list_kinds(window: WindowNow) -> Whole[KindShown]:
    """Every kind of credential this installation can issue; they fit one page."""
    return Whole(items=[kind_shown(kind) for kind in kinds.values()][: window.limit])


@router.get("/{name}", operation_id="show_kind", dependencies=[Depends(current_caller)])
def show_kind(name: str) -> KindShown:
    """One kind of credential."""
    if name not in kinds:
        known = ", ".join(sorted(kinds))
        raise NotFound("There is no such kind of credential.", advice=f"There are: {known}.")
    return kind_shown(kinds[name])


def kind_shown(kind: Kind) -> KindShown:
    """A kind, as answered."""
    return KindShown.of(kind, about=kind.use.about, actions=sorted(kind.actions))
