"""HEAD wherever GET is served, and every method of a path in `Allow`."""

from __future__ import annotations

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from broker.web.middleware import allowed_methods
from tests.support.world import World
from tests.web.conftest import ClientOf, Replica


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/sign-in", "/.well-known/jwks.json", "/static/guestkey.css"]
)
def test_head_equals_get_without_the_body(replica: Replica, path: str) -> None:
    got = httpx.get(f"{replica.url}{path}", timeout=20)
    asked = httpx.head(f"{replica.url}{path}", timeout=20)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    # Numbers differ from one moment to the next.
    assert path == "/metrics" or asked.headers["content-length"] == got.headers["content-length"]
    assert asked.headers["content-type"] == got.headers["content-type"]


def test_head_needs_authentication_like_get(replica: Replica, world: World, client_of: ClientOf) -> None:
    assert httpx.head(f"{replica.url}/api/v1/me", timeout=20).status_code == 401
    assert client_of(world.person()).head("/me").status_code == 200


def test_unsupported_method_lists_the_allowed_ones(replica: Replica) -> None:
    """Every path of the application."""
    paths: dict[str, set[str]] = {}
    for route in iter_route_contexts(replica.app.routes):
        if route.methods and route.path:
            paths.setdefault(route.path, set()).update(route.methods)
    assert len(paths) > 150 and any(len(methods) > 1 for methods in paths.values())
    with httpx.Client(base_url=replica.url, timeout=20) as client:
        for path, methods in paths.items():
            asked = "/".join("x" if part.startswith("{") else part for part in path.split("/"))
            answer = client.request("TRACE", asked)
            named = set(answer.headers.get("allow", "").split(", "))
            assert answer.status_code == 405, (path, answer.status_code)
            assert named >= methods | ({"HEAD"} if "GET" in methods else set()), (path, named)
            assert all(method in allowed_methods(replica.app, asked) for method in named)


@pytest.mark.parametrize(("path", "allow"), [("/api/v1/datasets", "GET, HEAD, POST"), ("/oauth/token", "POST")])
def test_allow_header_is_complete(replica: Replica, path: str, allow: str) -> None:
    answer = httpx.request("PUT", f"{replica.url}{path}", timeout=20)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
