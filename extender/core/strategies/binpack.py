"""Fill what is open before opening anything: as few GPUs as possible serve the shares, whole ones stay whole."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.options import Options, Order
from extender.core.seen import Seen

#: One more opened GPU outweighs any rest: no GPU has 2^30 MiB.
OPENED = float(2**30)
#: A node's free whole GPUs decide only between equal rests.
KEPT = 1 / 1024


class Binpack:
    """cost = 2^30 · GPUs opened + MiB left free on the chosen GPUs + free whole GPUs of the node / 1024.

    For whole GPUs and CPU-only pods the first two terms are absent: the node with the fewest free whole GPUs,
    then with the least free GPU memory, is the one that the fewest others can use.
    """

    name = names.BINPACK
    fills_first = True
    order = Order.TIGHTEST

    def learn(self, seen: Seen) -> None:
        """It needs to know nothing."""

    def terms(self, options: Options, learned: None) -> Mapping[str, NDArray[np.float64]]:  # noqa: ARG002 - it learns nothing
        """See the class."""
        whole = options.before(options.nodes.whole).astype(float)
        if not options.is_share:
            shared = options.before(options.nodes.free.sum(axis=1))
            return {"free whole GPUs": whole, "free shared memory": shared / OPENED}
        return {
            "GPUs opened": OPENED * options.opened,
            "MiB left on its GPUs": options.left.sum(axis=1).astype(float),
            "free whole GPUs": whole * KEPT,
        }
