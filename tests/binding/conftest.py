"""Tests of the protocol run in virtual time."""

from collections.abc import Iterator

import pytest

from tests.binding.stage import CARD, GPUS, World
from tests.binding.world import violations
from tests.virtual_time import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories", "world"]


@pytest.fixture
def world() -> Iterator[World]:
    """Two nodes and one extender; in the end its account holds, and no GPU was given out twice."""
    made = World()
    yield made
    made.ledger.check()
    assert violations(made.cluster, CARD, GPUS) == []
