"""Keep neighbours few: the least used node first, and the emptiest of its shared GPUs.

A new GPU is still opened only where no shared one has room: spreading must not eat the whole GPUs.
"""

from collections.abc import Mapping

from extender.core import names
from extender.core.placement import Placement
from extender.core.request import GpuRequest
from extender.core.values import NodeState, SharedGpu


class Spread:
    """cost = used part of the node's GPU memory + used part of the chosen shared GPUs / 1024 (both 0 to 1)."""

    name = names.SPREAD

    def gpu_cost(self, gpu: SharedGpu, mib: int) -> float:
        """The emptiest GPU first, whatever would be left."""
        return -float(gpu.free_mib)

    def terms(self, state: NodeState, request: GpuRequest, placement: Placement) -> Mapping[str, float]:
        """See the class."""
        chosen = sum(gpu.memory_mib for gpu in placement.on)
        used = sum(gpu.used_mib for gpu in placement.on)
        return {
            "used part of the node's GPUs": _used_part(state),
            "used part of its GPUs": used / chosen / 1024 if chosen else 0.0,
        }


def _used_part(state: NodeState) -> float:
    card = state.inventory.memory_mib or 0
    total = card * state.inventory.whole_gpus
    free = card * state.whole_free + sum(gpu.free_mib for gpu in state.gpus)
    return 1 - free / total if total else 0.0
