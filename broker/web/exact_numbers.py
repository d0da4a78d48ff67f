"""Bodies whose numbers are kept as they were written: 99999999999999.995 is not 100000000000000.0."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Exact(Request):
    async def json(self) -> Any:
        return json.loads(await self.body(), parse_float=Decimal)


class ExactNumbers(APIRoute):
    """A route that reads numbers with a point or an exponent as `Decimal`."""

    def get_route_handler(self) -> Handler:
        """See FastAPI, "Custom Request and APIRoute class"."""
        handle = super().get_route_handler()

        async def exactly(request: Request) -> Response:
            return await handle(_Exact(request.scope, request.receive))

        return exactly
