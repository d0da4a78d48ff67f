"""The JSON API, version 1: one router a noun. Routers check form and render; what may be done is decided below."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fastapi import APIRouter, Depends

from broker.web.api.common import only_known_query

api_router = APIRouter(dependencies=[Depends(only_known_query)])
for _module in iter_modules(__path__, f"{__name__}."):
    for _found in list(vars(import_module(_module.name)).values()):
        if isinstance(_found, APIRouter):
            api_router.include_router(_found)
