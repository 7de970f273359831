"""Fill what is open before opening anything: as few GPUs as possible serve the shares, whole ones stay whole."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.options import Options, Order
from extender.core.seen import Seen


class Binpack:
    """cost = 2^40 · GPUs opened + 2^10 · MiB left free on the chosen GPUs + free whole GPUs of the node.

    One more opened GPU outweighs any rest, for no GPU has 2^30 MiB; a node's free whole GPUs decide only between equal
    rests. For whole GPUs and CPU-only pods the first two terms are absent, and what is free on the node's shared GPUs
    counts a 2^30th for each MiB: the node with the fewest free whole GPUs, then with the least free GPU memory, is the
    one that the fewest others can use.
    """

    name = names.BINPACK
    fills_first = True
    order = Order.TIGHTEST
    weights: Final = {
        "GPUs opened": 2.0**40,
        "MiB left on its GPUs": 2.0**10,
        "MiB free on the node's shared GPUs": 2.0**-30,
    }

    def learn(self, seen: Seen) -> None:
        """It needs to know nothing."""

    def terms(self, options: Options, learned: None) -> Mapping[str, NDArray[np.float64]]:  # noqa: ARG002 - it learns nothing
        """See the class."""
        whole = options.before(options.nodes.whole).astype(float)
        if not options.is_share:
            shared = options.before(options.nodes.free.sum(axis=0)).astype(float)
            return {"free whole GPUs": whole, "MiB free on the node's shared GPUs": shared}
        return {
            "GPUs opened": options.opened.astype(float),
            "MiB left on its GPUs": options.left.sum(axis=0).astype(float),
            "free whole GPUs": whole,
        }
