"""The JSON API, version 1: one router a noun. Routers check form and render; what may be done is decided below."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from broker.web.api import (
    access_at,
    connections,
    datasets,
    events,
    factors,
    grants,
    hosts,
    installation,
    invitations,
    kinds,
    leases,
    log,
    me,
    notice_channels,
    notices,
    people,
    people_factors,
    policy,
    proposals,
    requests,
    services,
    sessions,
    sources,
    suspensions,
    teams,
    vendors,
)
from broker.web.validation import only_known_query

api_router = APIRouter(dependencies=[Depends(only_known_query)])
for _module in (
    me,
    factors,
    sessions,
    datasets,
    connections,
    requests,
    grants,
    leases,
    kinds,
    vendors,
    people,
    people_factors,
    teams,
    services,
    sources,
    invitations,
    proposals,
    policy,
    installation,
    suspensions,
    notices,
    notice_channels,
    events,
    log,
    access_at,
    hosts,
):
    api_router.include_router(_module.router)
