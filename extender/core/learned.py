"""What was learned from a frozen copy: a pure function, so that it can run in another process or at once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from extender.core.fragmentation import Fragmentation, fragmentation_of
from extender.core.seen import Seen
from extender.core.strategies import STRATEGIES


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


def refresh(seen: Seen, strategies: Collection[str]) -> Learned:
    """Learn what these strategies need: the same for the same copy."""
    counts = seen.counts * (seen.table.devices > 0)
    return Learned(
        fragmentation_of(seen.table, counts / max(counts.sum(), 1e-9)),
        {name: strategy.learn(seen) for name, strategy in STRATEGIES.items() if name in strategies},
    )
