"""The portal: pages for people, one file a group of screens. They call what the API calls and decide nothing."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from broker.web.portal.forms import router

__all__ = ["router"]

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)


def _named_last(route: BaseRoute) -> list[bool]:
    """Words before names, part by part: `/datasets/new` is no dataset, and `/people/import` nobody."""
    assert isinstance(route, APIRoute)  # pages and forms are nothing else
    return [part.startswith("{") for part in route.path.split("/")]


router.routes.sort(key=_named_last)
