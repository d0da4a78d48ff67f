"""The promises are tried on servers that wait for the disk, as in operation."""

from collections.abc import Iterator

import pytest

from broker.embedded.stack import Stack
from tests.support.stacks import durable


@pytest.fixture(scope="package", autouse=True)
def as_in_operation(stack: Stack) -> Iterator[None]:
    """What is written waits for the disk."""
    with durable(stack):
        yield
