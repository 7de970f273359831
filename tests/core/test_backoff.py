"""What failed waits, longer each time, and only where it failed."""

from extender.core.ages import Ages
from extender.core.backoff import Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_failure_doubles_the_wait_up_to_a_limit() -> None:
    backoff = Backoff(Clock(), first=10, most=60)
    assert [backoff.failed("p", "n") for _ in range(5)] == [10, 20, 40, 60, 60]


def test_it_waits_only_there_and_only_so_long() -> None:
    clock = Clock()
    backoff = Backoff(clock, first=10)
    backoff.failed("p", "n")
    assert (backoff.waits("p"), backoff.waits("q")) == ({"n": 10}, {})
    clock.now = 9.9
    backoff.failed("p", "m")
    assert set(backoff.waits("p")) == {"n", "m"}
    clock.now = 10
    assert set(backoff.waits("p")) == {"m"}


def test_a_wait_that_is_over_still_counts_for_the_next() -> None:
    clock = Clock()
    backoff = Backoff(clock, first=10)
    backoff.failed("p", "n")
    clock.now = 1000
    assert not backoff.waits("p")
    assert backoff.failed("p", "n") == 20
    backoff.end("p")
    assert not backoff.waits("p")
    assert backoff.failed("p", "n") == 10


def test_only_so_many_are_remembered() -> None:
    backoff = Backoff(Clock(), keys=2)
    for key in "abc":
        backoff.failed(key, "n")
    assert not backoff.waits("a")
    assert backoff.waits("c")


def test_an_age_begins_anew_after_a_look_without_it() -> None:
    ages: Ages[str] = Ages()
    assert ages.see(["a"], 5) == {"a": 0}
    assert ages.see(["a", "b"], 8) == {"a": 3, "b": 0}
    assert ages.see(["b"], 9) == {"b": 1}
    assert ages.see(["a"], 10) == {"a": 0}
