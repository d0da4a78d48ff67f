"""The web application: `create_app` puts routes, lifespan and error rendering together. Nothing happens at import."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from broker.base import metrics
from broker.base.addresses import Proxies
from broker.base.errors import BackendDown, Forbidden, GuestkeyError, Invalid, NotSignedIn, TooMany
from broker.base.settings import Settings
from broker.oauth import refusals
from broker.oauth import routes as oauth
from broker.runtime.parts import Parts
from broker.web import health, pki, portal, problem_pages, problems, sign_in
from broker.web.api import api_router
from broker.web.api.common import render_invalid
from broker.web.limits import RateLimits, SizeLimits
from broker.web.middleware import HeadRequests, HostCheck, Peers, SecurityHeaders, TlsCheck, allowed_methods
from broker.web.observability import RequestLog
from broker.web.openapi import describe
from broker.web.portal.pages import StaticParts
from broker.web.problems import code_of_status

log = structlog.get_logger(__name__)
# After these a body, or what else there is, may still be on its way.
_UNREAD = frozenset({"malformed", "too_large", "too_slow"})


def create_app(settings: Settings, parts: Parts | None = None) -> FastAPI:
    """The application of one web replica.

    Args:
        parts: what it works with; made from the settings when it starts, and closed when it stops, if not given.
    """
    app = FastAPI(
        title="Guestkey",
        version="1",
        lifespan=_lifespan(settings, parts),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.proxies = Proxies(settings.trusted_proxies)
    app.state.without_head, app.state.kept_checks = Counter(), health.KeptChecks()
    app.state.pki_relay, app.state.sign_in_desk = pki.Relay(), sign_in.SignInQueue(settings)
    app.state.public_url = str(settings.public_url).rstrip("/")
    _add_routes(app)
    _add_error_rendering(app)
    _add_middleware(app, settings)
    describe(app)
    return app


def _lifespan(settings: Settings, parts: Parts | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.parts = parts or await asyncio.to_thread(Parts.build, settings, identity="issuer")
        try:
            yield
        finally:
            if parts is None:
                await asyncio.to_thread(app.state.parts.close)

    return lifespan


def _add_routes(app: FastAPI) -> None:
    app.include_router(health.router)
    app.include_router(pki.router)
    app.include_router(problem_pages.router)
    app.include_router(api_router, prefix="/api/v1")
    app.include_router(oauth.router)
    app.include_router(sign_in.router)
    app.include_router(portal.router)
    app.mount("/static", StaticParts())


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    # Added from the inside out: the last one sees a request first.
    app.add_middleware(HeadRequests)
    app.add_middleware(
        RateLimits,
        per_caller=settings.rate_limit_per_minute,
        per_address=settings.rate_limit_anonymous_per_minute,
        refuse=_refuse,
    )
    app.add_middleware(SizeLimits, body_limit=settings.body_limit, refuse=_refuse)
    app.add_middleware(HostCheck, public_url=app.state.public_url, refuse=_refuse)
    app.add_middleware(TlsCheck, public_url=app.state.public_url, refuse=_refuse)
    app.add_middleware(SecurityHeaders, public_url=app.state.public_url)
    app.add_middleware(RequestLog, refuse=_refuse)
    app.add_middleware(Peers, proxies=app.state.proxies)


def _add_error_rendering(app: FastAPI) -> None:
    app.add_exception_handler(GuestkeyError, _ours)
    app.add_exception_handler(NotSignedIn, _or_kept)
    app.add_exception_handler(Forbidden, _or_kept)
    app.add_exception_handler(refusals.OAuthRefused, _of_oauth)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(RequestValidationError, render_invalid)


def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, GuestkeyError)  # registered for nothing else
    if isinstance(error, BackendDown):
        metrics.backend_faults.labels(error.backend).inc()
    if isinstance(error, TooMany):
        log.info("request.limited", code=error.code)
    if problem_pages.wants_page(request):
        return problem_pages.page(request, error)
    return problems.render(request, error)


async def _or_kept(request: Request, error: Exception) -> Response:
    """The same, but a form of the portal is shown back, to be sent again after sign-in."""
    assert isinstance(error, GuestkeyError)  # registered for nothing else
    if problem_pages.wants_page(request) and (kept := await problem_pages.offer_kept_form(request, error)) is not None:
        return kept
    answer: Response = await run_in_threadpool(_ours, request, error)
    return answer


def _of_oauth(request: Request, error: Exception) -> Response:
    assert isinstance(error, refusals.OAuthRefused)  # registered for nothing else
    if isinstance(error, refusals.AuthorizationRefused):
        return RedirectResponse(error.location, 303, headers=refusals.no_store())
    if problem_pages.wants_page(request):
        asked = Invalid(error.description, advice="Run `guestkey login` again and use the address it prints.")
        return problem_pages.page(request, asked)
    return refusals.render(error)


def _of_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # registered for nothing else
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The framework names the methods of one route; several share a path.
        headers["Allow"] = ", ".join(allowed_methods(request.app, request.url.path))
    if problem_pages.wants_page(request):
        answer = problem_pages.page_of_status(request, error.status_code)
        answer.headers.update(headers)
        return answer
    return problems.problem(request, code_of_status(error.status_code), error.status_code, headers=headers)


async def _refuse(scope: Scope, receive: Receive, send: Send, code: str, status: int) -> None:
    """Answer from a middleware, before any route: the same problem documents as everywhere."""
    request = Request(scope)
    wait = scope.get("state", {}).get("retry_after")
    metrics.anonymous_refusals.labels(code).inc()
    headers = {"Retry-After": str(wait)} if wait else {}
    if code in _UNREAD:
        headers["Connection"] = "close"
    answer: Response = problems.problem(request, code, status, headers=headers)
    if problem_pages.wants_page(request):
        answer = problem_pages.bare_page(request, code, status, headers)
    await answer(scope, receive, send)
