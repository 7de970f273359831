"""The collector rests while lists are read, and not a moment longer."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from extender.live.collector import Collector


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_readers_may_overlap() -> None:
    collector = Collector()
    with collector.off():
        with collector.off():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_list_that_breaks_off_does_not_leave_it_off() -> None:
    with pytest.raises(OSError), Collector().off():
        raise OSError
    assert gc.isenabled()


def test_what_was_read_is_never_looked_at_again() -> None:
    with Collector().off():
        read = [{"a": [number]} for number in range(1000)]
    assert gc.get_freeze_count() >= 2 * len(read)


class _Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def test_what_is_garbage_before_it_does_not_stay() -> None:
    ring = weakref.ref(_Ring())
    with Collector().off():
        pass
    assert ring() is None
