"""What failed is left alone for a while, each time for twice as long."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache

#: Seconds after the first failure, and at most.
FIRST: Final = 10.0
MOST: Final = 300.0


@dataclass(slots=True)
class _Failures:
    number: int = 0
    #: place → until when
    places: dict[str, float] = field(default_factory=dict)


class Backoff:
    """Things by key, each left alone at the places where it failed."""

    def __init__(
        self, timer: Callable[[], float], *, first: float = FIRST, most: float = MOST, keys: int = 10_000
    ) -> None:
        self._timer = timer
        self._first = first
        self._most = most
        #: How often something failed is remembered after its time, or it would begin anew each time.
        self._failures: LRUCache[str, _Failures] = LRUCache(maxsize=keys)

    def failed(self, key: str, place: str) -> float:
        """It failed there; for how many seconds it is left alone."""
        failures = self._failures.setdefault(key, _Failures())
        seconds = min(self._most, self._first * 2.0 ** min(failures.number, 60))
        failures.number += 1
        failures.places[place] = self._timer() + seconds
        return seconds

    def waits(self, key: str) -> Mapping[str, float]:
        """The places where it is left alone now, each with the time until when."""
        failures = self._failures.get(key)
        if failures is None:
            return {}
        now = self._timer()
        failures.places = {place: until for place, until in failures.places.items() if until > now}
        return failures.places

    def end(self, key: str) -> None:
        """It went well, or is gone. Idempotent."""
        self._failures.pop(key, None)
