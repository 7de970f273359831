"""The protocol holds in every world, and each sentence of it is needed in one."""

import pytest

from tests.model.cluster import Cluster
from tests.model.config import Config
from tests.model.explorer import Found, explore
from tests.model.protocol import SENTENCES
from tests.model.worlds import COVERED_BY_OTHERS, HOLES, SHOWN_IN, WORLDS

#: More than any of these worlds has.
LIMIT = 40_000


def explored(config: Config) -> Found:
    return explore(Cluster(config), LIMIT, progress=True)


@pytest.mark.parametrize("name", WORLDS)
def test_the_protocol_holds(name: str) -> None:
    """No device is given out twice or used unreserved, and no pod waits for ever."""
    found = explored(WORLDS[name])
    assert found.violation is None, f"{found}"
    assert found.complete
    assert found.states > 100, "so small a world shows nothing"


@pytest.mark.parametrize("sentence", SHOWN_IN)
def test_leaving_out(sentence: str) -> None:
    """The checker finds it: so the sentence earns its place, and the model can see."""
    found = explored(WORLDS[SHOWN_IN[sentence]].without(sentence))
    assert found.violation is not None
    assert found.trace


@pytest.mark.parametrize("hole", HOLES)
def test_a_known_hole(hole: str) -> None:
    """What closes one makes this fail, and then docs/binding.md names one hole less."""
    assert explored(HOLES[hole]).violation is not None


def test_every_sentence_is_left_out_once() -> None:
    assert set(SENTENCES) == SHOWN_IN.keys() | COVERED_BY_OTHERS
