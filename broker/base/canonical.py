"""Canonical JSON (RFC 8785): what events, digests and signatures are made of. The only place that writes it.

That form knows no whole numbers beyond 2**53-1, so such a number enters it as its digits in a text: exact for every
reader, instead of an error at the last step of something that was allowed.
"""

from __future__ import annotations

from typing import Any

import rfc8785

from broker.base.errors import Invalid

_SAFE = 2**53 - 1


def dumps(value: Any) -> bytes:
    """Canonical JSON of JSON values.

    Raises:
        Invalid: it holds half a character, or a number that is none; neither can be written in JSON.
    """
    try:
        return rfc8785.dumps(_exact(value))
    except rfc8785.CanonicalizationError as error:
        raise Invalid(
            "This holds what JSON cannot say: half of a character, or a number that is none (NaN, Infinity).",
            advice="Type it again by hand.",
        ) from error


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(inner) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE:
        return str(value)
    return value
