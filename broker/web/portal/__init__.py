"""The portal: pages for people, one file a group of screens. They call what the API calls and decide nothing."""

from __future__ import annotations

from fastapi import APIRouter

from broker.web.portal import (
    access,
    asking,
    auditing,
    authorizing,
    channels,
    confirming_elsewhere,
    credentials,
    datasets,
    deciding,
    describing,
    grants,
    home,
    importing,
    installation,
    leases,
    noticing,
    offboarding,
    people,
    placing,
    registry,
    reviewing,
    searching,
    security,
    shown_once,
    slices,
    sources,
    suspending,
    vendors,
)

router = APIRouter(include_in_schema=False)
for _module in (
    home,
    shown_once,
    security,
    authorizing,
    confirming_elsewhere,
    # Before a dataset's own page: `/datasets/new` is no dataset.
    describing,
    placing,
    slices,
    datasets,
    asking,
    reviewing,
    searching,
    # Before `/people/{person_id}` and `/grants/{grant_id}`, which would take `import` for one.
    importing,
    credentials,
    grants,
    leases,
    suspending,
    auditing,
    access,
    registry,
    sources,
    # Before `/people/{person_id}/{what}` and its like.
    offboarding,
    people,
    vendors,
    installation,
    deciding,
    noticing,
    channels,
):
    router.include_router(_module.router)
