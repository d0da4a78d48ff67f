"""A real replica that the examples speak to."""

from tests.sdk.conftest import replica

__all__ = ["replica"]
