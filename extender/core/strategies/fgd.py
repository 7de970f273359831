"""Fragmentation gradient descent, as published: take the place where fragmentation grows least.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
USENIX ATC'23. Here to compare with, and so that a benchmark can be trusted that reproduces its numbers.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.fragmentation import Fragmentation, fragmentation_of
from extender.core.options import Options
from extender.core.seen import Seen
from extender.core.shapes import Shape

#: The typical pods are the most frequent shapes that make up this part of all pods.
COVERED = 0.95


class Fgd:
    """cost = -int(100 · sigmoid(F before - F after)), F in GPUs over the typical pods (see ``fragmentation``).

    The truncation is part of the rule: near-equal nodes tie, and the first one fills up.
    """

    name = names.FGD
    fills_first = False
    tightest = True

    def learn(self, seen: Seen) -> Fragmentation:
        """F over the typical pods of the workload so far."""
        typical = typical_pods(seen)
        total = sum(typical.values())
        return fragmentation_of(list(typical), [w / total for w in typical.values()], seen.kinds)

    def terms(self, options: Options, learned: Fragmentation) -> Mapping[str, NDArray[np.float64]]:
        """See the class."""
        lost = learned.of(options.after) - learned.of(options.before)[options.node]
        return {"fragmentation (score 0 to 100, negated)": -np.floor(100 / (1 + np.exp(lost)) + 1e-9)}


def typical_pods(seen: Seen) -> dict[Shape, float]:
    """The most frequent shapes, larger requests first on ties, until 95 % are covered."""
    gpus = seen.gpus()
    order = sorted(
        range(len(seen.shapes)), key=lambda index: (-seen.counts[index], -gpus[index], -seen.shapes[index].cpu)
    )
    typical: dict[Shape, float] = {}
    wanted = COVERED * seen.counts.sum()
    for index in order:
        if sum(typical.values()) >= wanted:
            break
        typical[seen.shapes[index]] = float(seen.counts[index])
    return typical
