"""For each shape of request, the verdict on every node, kept as arrays; only changed nodes are judged again.

A decision then costs one array look-up per name in the request, however large the cluster is.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Final

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

#: The position of every name that is not known: the last slot of each array.
UNKNOWN: Final = -1
Positions = NDArray[np.int64] | slice

#: Judges the nodes at these positions: cost and code of each.
Judge = Callable[[Positions], tuple[NDArray[np.float64], NDArray[np.int16]]]


@dataclass(slots=True)
class Verdicts:
    """One request shape's view of the cluster. The last slot stands for unknown nodes."""

    #: Smaller is better; +inf where the request does not fit.
    cost: NDArray[np.float64]
    #: See ``codes``.
    code: NDArray[np.int16]
    #: How much of the journal these arrays have seen.
    seen: int


class Scoreboard:
    """Positions of nodes, a journal of changes, and the verdicts per shape."""

    def __init__(self, *, unknown_code: int, shapes: int = 256, journal: int = 1 << 16) -> None:
        self._unknown = unknown_code
        #: name → position, as an array holds it.
        self._position: dict[str, bytes] = {}
        self._names: list[str] = []
        #: Positions of nodes that are gone.
        self._vacant: list[int] = []
        #: Positions in the order in which they changed; the first one is number ``_dropped``.
        self._journal: list[int] = []
        self._dropped = 0
        self._longest = journal
        self._verdicts: LRUCache[Hashable, Verdicts] = LRUCache(maxsize=shapes)

    def __len__(self) -> int:
        return len(self._names)

    def touch(self, name: str) -> int:
        """That node changed: whatever was judged of it is void. Returns its position."""
        known = self._position.get(name)
        position = self._place_of(name) if known is None else _number(known)
        if known is None:
            self._position[name] = _written(position)
        self._journal.append(position)
        if len(self._journal) > 2 * self._longest:
            del self._journal[: self._longest]
            self._dropped += self._longest
        return position

    def name(self, position: int) -> str:
        """The node at that position."""
        return self._names[position]

    def release(self, position: int) -> None:
        """That node is gone; another may have its place, or memory would grow with every node that ever was."""
        if self._position.pop(self._names[position], None) is not None:
            self._vacant.append(position)

    def _place_of(self, name: str) -> int:
        if not self._vacant:
            self._names.append(name)
            return len(self._names) - 1
        position = self._vacant.pop()
        self._names[position] = name
        return position

    def forget_verdicts(self) -> None:
        """What nodes are worth has changed as a whole."""
        self._verdicts.clear()

    def positions(self, nodes: Sequence[str]) -> NDArray[np.int64]:
        """Where these nodes are in the arrays; UNKNOWN for names never seen."""
        if len(nodes) < 2:
            return np.array([_number(self._position.get(name, _NOWHERE)) for name in nodes], np.int64)
        try:
            # The quickest way through a list of names that Python has: one look-up each, and no integer is made.
            found: Iterable[bytes] = itemgetter(*nodes)(self._position)
        except KeyError:
            found = map(self._position.get, nodes, repeat(_NOWHERE))
        return np.frombuffer(b"".join(found), np.int64)

    def names(self, positions: NDArray[np.int64]) -> list[str]:
        """The nodes at these positions."""
        return [self._names[position] for position in positions.tolist()]

    def verdicts(self, shape: Hashable, judge: Judge) -> Verdicts:
        """The arrays for that shape, brought up to date by judging what has changed since."""
        known = self._verdicts.get(shape)
        stale: Positions
        if known is None or known.seen < self._dropped:
            known = self._fresh(len(self._names))
            stale = slice(len(self._names))
        else:
            changed = set(self._journal[known.seen - self._dropped :])
            stale = np.fromiter(changed, np.int64, len(changed))
            known = self._grown(known)
        known.cost[stale], known.code[stale] = judge(stale)
        known.seen = self._dropped + len(self._journal)
        self._verdicts[shape] = known
        return known

    def _fresh(self, count: int) -> Verdicts:
        return Verdicts(np.full(count + 1, np.inf), np.full(count + 1, self._unknown, np.int16), seen=self._dropped)

    def _grown(self, known: Verdicts) -> Verdicts:
        if len(known.cost) == len(self._names) + 1:
            return known
        grown = self._fresh(len(self._names))
        old = len(known.cost) - 1
        grown.cost[:old] = known.cost[:old]
        grown.code[:old] = known.code[:old]
        return grown


def _written(position: int) -> bytes:
    return position.to_bytes(8, sys.byteorder, signed=True)


def _number(written: bytes) -> int:
    return int.from_bytes(written, sys.byteorder, signed=True)


_NOWHERE: Final = _written(UNKNOWN)


def best(cost: NDArray[np.float64], positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The ``count`` (0 = all) different positions of least cost, best first; ties by position, +inf left out."""
    if count == 1 and len(positions):
        costs = cost.take(positions)
        least = costs[costs.argmin()]
        tied = positions[costs == least]
        return np.sort(tied)[:1] if least != np.inf else tied[:0]
    asked = np.zeros(len(cost), bool)
    asked[positions] = True
    positions = np.flatnonzero(asked & (cost != np.inf))
    costs = cost[positions]
    if len(positions) > count > 0:
        limit = np.partition(costs, count - 1)[count - 1]
        below, tied = positions[costs < limit], positions[costs == limit]
        missing = count - len(below)
        if len(tied) > missing:
            tied = np.partition(tied, missing - 1)[:missing]
        positions = np.concatenate([below, tied])
        costs = cost[positions]
    return positions[np.lexsort((positions, costs))]
