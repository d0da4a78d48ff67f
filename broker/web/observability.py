"""What the operator sees: one log line a request, with a request id, and faults without their secrets."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO, cast

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.base import metrics
from broker.base.ids import new_id
from broker.web.limits import holder_of
from broker.web.middleware import WITHOUT_HOST, Refuse

log = structlog.get_logger("guestkey.request")
_OURS = f"{Path(__file__).parents[1]}"
_MOST_FRAMES = 12
# As nginx calls it: the client went away before there was an answer.
CLIENT_GONE = 499
# Libraries that log addresses with query strings, or statements with their values.
TOO_TALKATIVE = ("httpx", "urllib3", "requests", "sqlalchemy", "uvicorn.access")


class _Stream:
    """Where the log's lines go. One that finds no room is counted and let go: what it tells of goes on all the same."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        """Write a line."""
        try:
            return self._to.write(text)
        except OSError:
            metrics.log_lines_lost.inc()
            return 0

    def flush(self) -> None:
        """Let what was written out of this process."""
        # A line that was lost has been counted; it is not lost twice.
        with suppress(OSError):
            self._to.flush()


def configure_logging(level: str) -> None:
    """JSON lines on standard error, for our own code and for the libraries'. Called by commands, never at import."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    stream = cast(TextIO, _Stream(sys.stderr))
    threshold = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, _without_exception_text, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _without_exception_text,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    for name in TOO_TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def frames_of(error: BaseException) -> list[str]:
    """Where an error came from, as `file:line function`. Never its text: that may quote what was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if _OURS in frame.filename]
    last = [*ours, *frames[-1:]] if frames and frames[-1] not in ours else ours
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in last[-_MOST_FRAMES:]]


def _without_exception_text(_logger: Any, _method: str, event: Any) -> Any:
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    elif info and not isinstance(info, tuple):
        info = sys.exc_info()
    if isinstance(info, tuple) and info[1] is not None:
        event["error"], event["frames"] = type(info[1]).__name__, frames_of(info[1])
    return event


class RequestLog:
    """Outermost ASGI middleware: gives the request its id, logs its outcome, and turns a fault into a plain 500.

    The route's template is logged, not the address as sent: addresses carry invitations and codes.
    """

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("rq")
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status, began = 0, perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001  the last stop: a fault of ours must not show its insides
            log.error("request.fault", error=type(error).__name__, frames=frames_of(error))
            if not status:
                await self._refuse(scope, receive, noted, "internal", 500)
        finally:
            _log_outcome(scope, status, perf_counter() - began)


def template_of(scope: Scope) -> str:
    """The address with its parameters' names instead of their values; empty where no route matched."""
    if "endpoint" not in scope:
        return ""
    path = str(scope["path"])
    for name, value in reversed(scope.get("path_params", {}).items()):
        head, found, tail = path.rpartition(f"/{value}")
        if found and tail[:1] in ("", "/"):
            path = f"{head}/{{{name}}}{tail}"
    return path


def _log_outcome(scope: Scope, status: int, seconds: float) -> None:
    route = template_of(scope)
    metrics.requests.labels(scope["method"] if route else "", route, str(status or CLIENT_GONE)).observe(seconds)
    if scope["path"] in WITHOUT_HOST:
        return
    log.info(
        "request",
        method=scope["method"],
        route=route,
        status=status or CLIENT_GONE,
        milliseconds=round(seconds * 1000, 1),
        holder=holder_of(scope.get("state", {})),
        address=scope["client"][0] if scope.get("client") else None,
    )
