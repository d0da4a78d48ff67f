"""The portal: pages for people, one file a group of screens. They call what the API calls and decide nothing."""

from __future__ import annotations

from fastapi import APIRouter

from broker.web.portal import (
    admin,
    asking,
    auditing,
    authorizing,
    changing,
    channels,
    confirming_elsewhere,
    credentials,
    datasets,
    deciding,
    describing,
    granting_form,
    home,
    importing,
    installation,
    inviting,
    leases,
    noticing,
    owning,
    parting,
    placing,
    registry,
    reviewing,
    searching,
    security,
    shown_once,
    slicing,
    sources,
    suspending,
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
    slicing,
    changing,
    datasets,
    asking,
    reviewing,
    searching,
    # Before `/people/{person_id}` and `/grants/{grant_id}`, which would take `import` for one.
    importing,
    granting_form,
    credentials,
    leases,
    suspending,
    auditing,
    owning,
    registry,
    sources,
    inviting,
    # Before `/people/{person_id}/{what}` and its like.
    parting,
    admin,
    installation,
    deciding,
    noticing,
    channels,
):
    router.include_router(_module.router)
