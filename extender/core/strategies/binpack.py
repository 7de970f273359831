"""Fill what is open before opening anything: as few GPUs as possible serve the shares, whole ones stay whole."""

from collections.abc import Mapping

from extender.core import names
from extender.core.placement import Placement
from extender.core.request import GpuRequest
from extender.core.values import NodeState, SharedGpu

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

    def gpu_cost(self, gpu: SharedGpu, mib: int) -> float:
        """MiB that would be left: the tightest hole that fits."""
        return gpu.free_mib - mib

    def terms(self, state: NodeState, request: GpuRequest, placement: Placement) -> Mapping[str, float]:
        """See the class."""
        if request.share is None:
            return {
                "free whole GPUs": float(state.whole_free),
                "free shared memory": sum(gpu.free_mib for gpu in state.gpus) / OPENED,
            }
        card = state.inventory.memory_mib or 0
        rest = sum(gpu.free_mib for gpu in placement.on) + card * placement.new - sum(placement.mib)
        return {
            "GPUs opened": OPENED * placement.new,
            "MiB left on its GPUs": float(rest),
            "free whole GPUs": state.whole_free * KEPT,
        }
