"""How costs are compared."""

from typing import Any, Final

import numpy as np

#: Costs that differ by less than this part are equal: what only rounding tells apart goes by the order of the nodes.
STEP: Final = 1 / (1 << 30)


def in_steps(cost: Any) -> Any:
    """A cost, or an array of them, in whole steps."""
    return np.rint(cost / STEP)
