"""Whatever fits, nearly fits or does not fit the description: never a fault of ours, always a problem document."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core.result import Ok

from tests.support.world import World
from tests.web.conftest import Replica

_EXAMPLES = 6
UNPROCESSABLE = 422


def test_no_input_causes_an_internal_error(replica: Replica, world: World) -> None:
    schema = schemathesis.openapi.from_dict(replica.app.openapi())
    # One kept connection for each, as a program has.
    callers = [requests.Session(), requests.Session()]
    for session, signed in zip(callers, (world.guest()[0], world.person(roles=("admin",))), strict=True):
        session.headers.update(signed.headers)
    tried = 0
    operations = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operations.append(found.ok())
    # Last: what fits it shuts everybody out, whoever asks included.
    operations.sort(key=lambda operation: operation.path.endswith("/installation/close"))
    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @hypothesis.given(case=strategy)
            @settings(
                max_examples=_EXAMPLES // 2,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def tell(case: schemathesis.Case[Any]) -> None:
                nonlocal tried
                for session in callers:
                    answer = case.call(base_url=replica.url, session=session, timeout=60)
                    tried += 1
                    what = f"{case.method} {case.path}: {answer.status_code} {answer.text[:300]}"
                    assert answer.status_code < 500, what
                    # OAuth's endpoints refuse in OAuth's own form (RFC 6749, 5.2).
                    if answer.status_code >= 400 and not case.path.startswith("/oauth/"):
                        assert answer.headers["content-type"][0].startswith("application/problem+json"), what
                    if answer.status_code == UNPROCESSABLE:
                        break  # what does not fit is refused before anything depends on who asks

            # What takes no input at all cannot be given a wrong one.
            with suppress(hypothesis.errors.Unsatisfiable):
                tell()
    world.open_again()
    assert tried > 200
