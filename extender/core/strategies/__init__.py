"""How to choose among the nodes and GPUs that fit: one file per strategy, one interface.

A new strategy is one file here, an entry in ``STRATEGIES`` and its name in ``names``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from extender.core.placement import Placement
from extender.core.request import GpuRequest
from extender.core.strategies.binpack import Binpack
from extender.core.strategies.spread import Spread
from extender.core.values import NodeState, SharedGpu


class Strategy(Protocol):
    """Puts the places that fit in order."""

    name: str

    def gpu_cost(self, gpu: SharedGpu, mib: int) -> float:
        """How little a share of ``mib`` belongs on that GPU, which has room; smaller is better."""

    def terms(self, state: NodeState, request: GpuRequest, placement: Placement) -> Mapping[str, float]:
        """What the cost of that placement is made of, each part named in a user's words; their sum is the cost.

        ``state`` is the node before. Smaller is better; nodes of equal cost are taken in the order of the ledger.
        """


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {strategy.name: strategy for strategy in (Binpack(), Spread())}
)
