"""Keep neighbours few: the least used node first, and the emptiest of its shared GPUs.

A new GPU is still opened only where no shared one has room: spreading must not eat the whole GPUs.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.options import Options, Order
from extender.core.seen import Seen


class Spread:
    """cost = used part of the node's GPU memory + used part of the chosen shared GPUs / 1024 (both 0 to 1)."""

    name = names.SPREAD
    fills_first = True
    order = Order.EMPTIEST
    weights: Final = {"used part of its GPUs": 1 / 1024}

    def learn(self, seen: Seen) -> None:
        """It needs to know nothing."""

    def terms(self, options: Options, learned: None) -> Mapping[str, NDArray[np.float64]]:  # noqa: ARG002 - it learns nothing
        """See the class."""
        nodes = options.nodes
        total = nodes.card * nodes.gpus
        free = nodes.card * nodes.whole + nodes.free.sum(axis=0)
        used = np.where(total > 0, 1 - free / np.maximum(total, 1), 0.0)
        shared = options.on >= 0
        room = options.card * shared
        taken = (room - options.holes * shared).sum(axis=0)
        return {
            "used part of the node's GPUs": options.before(used),
            "used part of its GPUs": taken / np.maximum(room.sum(axis=0), 1),
        }
