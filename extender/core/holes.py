"""What a hole of some size in a GPU is worth to the shares that people ask for.

The dual of the cutting-stock problem "cut the demanded shares out of as few GPUs as possible" prices each size; the
value of a hole is the most that fits into it at these prices. A hole that only fits what is rare is worth little,
however large it is. Solved by column generation (Gilmore and Gomory 1961): start with patterns of one size each, price,
add the pattern that is worth most, until none is worth more than the GPU that it takes.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Sizes are thousandths of a GPU.
GRID = 1000
#: Sizes beyond the most frequent ones do not change prices that matter; the effort grows with their square.
MOST_SIZES = 64
#: Close enough to the optimum, as part of a GPU.
TOLERANCE = 1e-6


def hole_values(demand: Mapping[int, float]) -> Floats:
    """V[0..GRID]: the value of a hole of that size, V[GRID] = 1. ``demand``: size (1..GRID) → weight above 0.

    Without demand V(x) = x²: nothing is known but that large holes are worth more than their parts.
    """
    if not demand:
        squares: Floats = (np.arange(GRID + 1) / GRID) ** 2
        return squares
    frequent = sorted(demand.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_SIZES]
    sizes = np.array(sorted(size for size, _ in frequent))
    weights = np.array([demand[size] for size in sizes.tolist()])
    values = best_filling(sizes, _prices(sizes, weights))
    values /= values[GRID]
    return values


def waste_of(demand: Mapping[int, float], values: Floats) -> float:
    """The part of the GPUs that stays useless when the demand is served with as few of them as possible.

    By duality that many GPUs are what the demand is worth at these values.
    """
    gpus = sum(weight * float(values[size]) for size, weight in demand.items())
    asked = sum(weight * size for size, weight in demand.items()) / GRID
    return max(0.0, 1 - asked / gpus) if gpus else 0.0


def _prices(sizes: NDArray[np.int64], weights: Floats) -> Floats:
    """The dual prices of the sizes, by the revised simplex method on patterns."""
    inverse = np.diag(1.0 / (GRID // sizes))
    amounts = inverse @ (weights / weights.sum())
    prices: Floats = inverse.sum(axis=0)
    for _ in range(20 * len(sizes)):
        values = best_filling(sizes, prices)
        if values[GRID] <= 1 + TOLERANCE:
            break
        column = inverse @ _pattern(sizes, prices, values)
        ratios = np.where(column > 1e-12, amounts / np.where(column > 1e-12, column, 1.0), np.inf)
        leaving = int(ratios.argmin())
        step = ratios[leaving]
        amounts -= step * column
        amounts[leaving] = step
        row = inverse[leaving] / column[leaving]
        inverse -= np.outer(column, row)
        inverse[leaving] = row
        prices = inverse.sum(axis=0)
    return np.maximum(prices, 0.0)


def best_filling(sizes: NDArray[np.int64], prices: Floats) -> Floats:
    """For each capacity 0..GRID, the most that a multiset of sizes within it is worth (unbounded knapsack)."""
    values = np.zeros(GRID + 1)
    for size, price in zip(sizes.tolist(), prices.tolist(), strict=True):
        if price <= values[size]:
            continue  # What is smaller is worth as much in its place.
        # One, then two, then four more: every number of copies is a sum of these.
        copies = 1
        while copies * size <= GRID:
            taken = copies * size
            np.maximum(values[taken:], values[: GRID + 1 - taken] + copies * price, out=values[taken:])
            copies *= 2
    return values


def _pattern(sizes: NDArray[np.int64], prices: Floats, values: Floats) -> Floats:
    """How many of each size a best filling of a whole GPU takes."""
    counts = np.zeros(len(sizes))
    room = int(values.searchsorted(values[GRID] - 1e-12))
    while fitting := int(sizes.searchsorted(room, "right")):
        best = int((prices[:fitting] + values[room - sizes[:fitting]]).argmax())
        if prices[best] <= 0:
            break
        counts[best] += 1
        room = int(values.searchsorted(values[room - sizes[best]] - 1e-12))
    return counts
