"""What was learned from a frozen copy: a pure function, so that it can run in another process or at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

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


def refresh(seen: Seen) -> Learned:
    """Learn from what was seen: the same for the same copy."""
    asking = np.array([shape.devices > 0 for shape in seen.shapes], bool)
    counts = seen.counts * asking
    share = counts / max(counts.sum(), 1e-9)
    return Learned(
        fragmentation_of(seen.shapes, share, seen.kinds),
        {name: strategy.learn(seen) for name, strategy in STRATEGIES.items()},
    )
