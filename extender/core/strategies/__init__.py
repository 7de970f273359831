"""How to choose among the nodes and GPUs that fit: one file per strategy, one interface.

A new strategy is one file here, an entry in ``STRATEGIES`` and its name in ``names``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from extender.core.options import Options, Order
from extender.core.seen import Seen
from extender.core.strategies.adaptive import Adaptive
from extender.core.strategies.binpack import Binpack
from extender.core.strategies.fgd import Fgd
from extender.core.strategies.spread import Spread


class Strategy(Protocol):
    """Puts the places that fit in order."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def fills_first(self) -> bool:
        """Whether a GPU is opened only where a node's shared GPUs do not suffice."""

    @property
    def order(self) -> Order:
        """The order of ``options`` on a node: it decides between equal costs, and for shares on several devices."""

    @property
    def weights(self) -> Mapping[str, float]:
        """What one of each term costs; 1 where it is not named."""

    def learn(self, seen: Seen) -> Any:
        """What ``terms`` needs to know of the workload; picklable. Pure: it may run in another process."""

    def terms(self, options: Options, learned: Any) -> Mapping[str, NDArray[np.float64]]:
        """How much there is of what makes up the cost of each choice, in a user's words: the sum by ``weights``.

        ``learned`` is the latest answer of ``learn``. Smaller is better; nodes of equal cost are taken in the order of
        the ledger, choices of equal cost on a node in the order of ``options``.
        """


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {strategy.name: strategy for strategy in (Binpack(), Spread(), Fgd(), Adaptive())}
)
