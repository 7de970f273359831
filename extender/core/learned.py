"""What was learned from a frozen copy: a pure function, so that it can run in another process or at once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from extender.core.fragmentation import Fragmentation, fragmentation_of
from extender.core.seen import Seen
from extender.core.strategies import Strategy


@dataclass(frozen=True, slots=True)
class Learned:
    """Picklable; replaced as a whole."""

    #: F by the pods that ask for GPUs, each counting the same: for the metric.
    fragmentation: Fragmentation
    #: strategy → what it learned
    by_strategy: Mapping[str, Any]

    def updated(self, newer: "Learned") -> "Learned":
        """The newer, and of strategies that learned nothing new what they knew."""
        return replace(newer, by_strategy={**self.by_strategy, **newer.by_strategy})


def refresh(seen: Seen, strategies: Iterable[Strategy]) -> Learned:
    """Learn what these strategies need: the same for the same copy."""
    return Learned(
        fragmentation_of(seen.table, seen.frequency()),
        {strategy.name: strategy.learn(seen) for strategy in strategies},
    )
