"""Fragmentation gradient descent, as published: take the place where fragmentation grows least.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
USENIX ATC'23. Here to compare with, and so that a benchmark can be trusted that reproduces its numbers.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.fragmentation import Fragmentation, fragmentation_of
from extender.core.options import Options, Order
from extender.core.seen import Seen

#: The typical pods are the most frequent shapes that make up this many % of all pods.
COVERED = 95


class Fgd:
    """cost = -int(100 · sigmoid(F before - F after)), F in GPUs over the typical pods (see ``fragmentation``).

    The truncation is part of the rule: near-equal nodes tie, and the first one fills up.
    """

    name = names.FGD
    fills_first = False
    order = Order.BY_ID
    weights: Final[Mapping[str, float]] = {}

    def learn(self, seen: Seen) -> Fragmentation:
        """F over the typical pods of the workload so far."""
        weights = seen.counts * typical_pods(seen)
        return fragmentation_of(seen.table, weights / max(weights.sum(), 1e-9))

    def terms(self, options: Options, learned: Fragmentation) -> Mapping[str, NDArray[np.float64]]:
        """See the class."""
        score = np.floor(100 / (1 + np.exp(learned.change(options, options.taken()))) + 1e-9)
        return {"fragmentation (score 0 to 100, negated)": -score}


def typical_pods(seen: Seen) -> NDArray[np.bool_]:
    """Which shapes are the most frequent, until 95 % are covered: on ties those with more CPU first, then more GPU."""
    order = np.lexsort((-seen.gpus(), -seen.table.cpu, -seen.counts))
    covered = seen.counts[order].cumsum()
    typical = np.zeros(len(order), bool)
    typical[order] = covered - seen.counts[order] < COVERED * seen.counts.sum() / 100
    return typical
