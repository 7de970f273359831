"""The paper's BestFit, which only the benchmark needs."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.packing.openb import GPU_MIB
from extender.core.options import Options, Order
from extender.core.seen import Seen

#: The largest node, in the trace's units.
_CPU_MILLI = 128_000
_GPU_MILLI = 8_000


class BestFit:
    """cost = -int(100 · (1 - (0.5 · (C - c) / 128000 + 0.5 · (G - g) / 8000))), C and G what is free of CPU and GPU."""

    name = "bestfit"
    fills_first = False
    order = Order.TIGHTEST
    weights: Final[Mapping[str, float]] = {}

    def learn(self, seen: Seen) -> None:
        """It needs to know nothing."""

    def terms(self, options: Options, learned: None) -> Mapping[str, NDArray[np.float64]]:  # noqa: ARG002
        """The paper's score. It says nothing of the GPU: ``order`` does."""
        nodes = options.nodes
        free = nodes.whole * GPU_MIB + nodes.free.sum(axis=0)
        left = options.before(free) - np.round(options.taken() * GPU_MIB)
        cpu = options.after(options.cpu) // 1000
        # Room for reservation pods is below the trace's smallest unit.
        score = np.floor(100 * (1 - (0.5 * cpu / _CPU_MILLI + 0.5 * left / _GPU_MILLI)))
        return {"room left": -score}
