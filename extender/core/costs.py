"""What costs are made of, and how they are compared."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Costs that differ by less than this part are equal: what only rounding tells apart goes by the order of the nodes.
STEP: Final = 1 / (1 << 30)


class Term(NamedTuple):
    """A part of a cost: how much of it there is, and what that costs."""

    amount: float
    cost: float


def total(amounts: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """The cost of each choice, in steps. A term that has no weight counts as it is."""
    first, *others = (amount * weights[name] if name in weights else amount for name, amount in amounts.items())
    steps: Floats = in_steps(sum(others, first))
    return steps


def terms(amounts: Mapping[str, Floats], weights: Mapping[str, float], choice: int) -> Mapping[str, Term]:
    """What the cost of one choice is made of."""
    chosen = {name: float(values[choice]) for name, values in amounts.items()}
    return {name: Term(amount, amount * weights.get(name, 1.0)) for name, amount in chosen.items()}


def in_steps(cost: Any) -> Any:
    """A cost, or an array of them, in whole steps."""
    return np.rint(cost / STEP)
