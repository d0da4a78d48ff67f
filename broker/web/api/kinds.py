"""`/kinds`: the kinds of credentials, and how each ends. `/<kind>/…`: what hosts ask, who are services."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from broker.base.database import clock
from broker.base.errors import NotFound, NotSignedIn
from broker.base.paging import Whole
from broker.identity.caller import Caller
from broker.identity.http import current_caller
from broker.identity.nouns import Display
from broker.identity.permissions import require_own_service
from broker.kinds.base import Kind
from broker.kinds.discovery import kinds
from broker.kinds.values import Proof
from broker.leases import host_log_ins
from broker.oauth import clients
from broker.oauth.refusals import OAuthRefused
from broker.web.api.common import PartsNow, Shown, WindowNow, parts_of

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


Connection = Annotated[str, Path(max_length=32, description="The host, as slices call it.")]
_ADVICE = "Give host.conf the id and secret of a service of the organisation."


def host(request: Request, response: Response) -> Caller:
    """The host that asks: a service of the organisation, by its secret (HTTP Basic) or an API token.

    Raises:
        NotSignedIn: nobody known.
        Forbidden: a person, or a vendor's service.
    """
    response.headers["Cache-Control"] = "no-store"
    try:
        caller = clients.recognised(parts_of(request), request, {})
    except OAuthRefused as error:
        raise NotSignedIn("The client is unknown, or its secret is wrong.", advice=_ADVICE) from error
    require_own_service(caller, _ADVICE)
    return caller


asked_by_hosts = APIRouter()
# An operation's own, because no browser asks: `broker.web.openapi` gives all others theirs.
_SECURITY: dict[str, Any] = {"security": [{"basic": []}, {"bearer": []}]}


class LogIn(BaseModel):
    """Whether to let somebody in; of why not, nothing."""

    active: bool


class RevokedList(BaseModel):
    """A list of revoked certificates and its signature (Ed25519, RFC 8032), in base64."""

    signed: str = Field(description="`guestkey-krl/1`, the connection, the version, the KRL in base64; a line each.")
    signature: str


def _routes(kind: Kind) -> APIRouter:
    routes = APIRouter(prefix=f"/{kind.name}", tags=[kind.name], dependencies=[Depends(host)])

    @routes.get("/{connection}/leases/{handle}", operation_id=f"ask_{kind.name}_log_in", openapi_extra=_SECURITY)
    def ask(
        connection: Connection,
        handle: Annotated[str, Path(max_length=64, description="The certificate's key id without `token-`.")],
        parts: PartsNow,
        service: Annotated[Caller, Depends(host)],
        account: Annotated[str, Query(max_length=32, description="The account somebody wants to open.")],
        certificate: Annotated[str, Query(max_length=8192, description="Shown by them: `<type> <base64>`.")],
    ) -> LogIn:
        """Whether a certificate may open an account now; a yes is recorded as the lease's use.

        `guestkey-principals` asks this at every log-in.
        """
        with parts.database.transaction() as tx:
            now = clock(tx)
            active = host_log_ins.lets_in(tx, kind, connection, handle, account, certificate, now)
            if active:
                host_log_ins.note_use(tx, handle, connection, service, now)
        return LogIn(active=active)

    @routes.get("/{connection}/krl", operation_id=f"list_revoked_{kind.name}", openapi_extra=_SECURITY)
    def revoked(connection: Connection, parts: PartsNow) -> RevokedList:
        """A list for sshd's `RevokedKeys`: what ended or is ending and has not run out. `guestkey-krl` fetches it."""
        with parts.database.transaction() as tx:
            now = clock(tx)
            handles = host_log_ins.revoked(tx, kind, connection, now)
        made = kind.revoked_list(parts.vault, connection, handles, int(now.timestamp() * 1_000_000))
        return RevokedList(signed=made.text, signature=base64.b64encode(made.signature).decode())

    return routes


for _kind in kinds.values():
    if _kind.asked_by_hosts:
        asked_by_hosts.include_router(_routes(_kind))
