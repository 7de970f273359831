"""For each shape of request, the verdict on every node, kept as arrays; only what is asked about is judged, and again
only when it has changed.

A decision then costs one array look-up per name in the request, however large the cluster is.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import Final, NamedTuple, TypeVar

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

#: The position of every name that is not known: the last slot of each array.
UNKNOWN: Final = -1
#: Of nodes that have not been judged.
NEVER: Final = -1
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

#: Judges the nodes at these positions: cost and code of each.
Judge = Callable[[Ints], tuple[NDArray[np.float64], NDArray[np.int16]]]


class Asked(NamedTuple):
    """The nodes that somebody asks about."""

    #: Where each is in the arrays; UNKNOWN for names never seen.
    positions: Ints
    #: For each position whether it is among them: to look at all positions in a row is quicker than to collect some.
    flags: Flags


@dataclass(slots=True)
class Verdicts:
    """One request shape's view of the nodes that it was asked about. The last slot stands for unknown nodes."""

    #: Smaller is better; +inf where the request does not fit.
    cost: NDArray[np.float64]
    #: See ``codes``.
    code: NDArray[np.int16]
    #: How many changes there had been when the node was judged; what is older than its last change is void.
    judged: Ints

    def copy(self) -> "Verdicts":
        """One that may be changed for a single pod."""
        return Verdicts(self.cost.copy(), self.code.copy(), self.judged)


class Scoreboard:
    """Positions of nodes, when each changed, and the verdicts per shape."""

    def __init__(self, *, unknown_code: int, shapes: int = 256, lists: int = 64) -> None:
        self._unknown = unknown_code
        #: name → position, as an array holds it.
        self._position: dict[str, bytes] = {}
        self._names: list[str] = []
        #: How many names have got a position so far.
        self.placed = 0
        #: Positions of nodes that are gone.
        self._vacant: list[int] = []
        self._changes = 0
        #: How many changes there had been, each node's last one included; 0 for unknown nodes.
        self._changed = np.zeros(1, np.int64)
        self._verdicts: LRUCache[Hashable, Verdicts] = LRUCache(maxsize=shapes)
        #: length → the latest list of so many names, and where they are: void once any name gets or loses a position.
        self._lists: LRUCache[int, tuple[list[str], Asked]] = LRUCache(maxsize=lists)

    def __len__(self) -> int:
        return len(self._names)

    def place(self, name: str) -> int:
        """The node's position, from now on if it has none yet."""
        known = self._position.get(name)
        return self._place_of(name) if known is None else _number(known)

    def touch(self, position: int) -> None:
        """The node there changed: whatever was judged of it is void."""
        self._changes += 1
        self._changed[position] = self._changes

    def name(self, position: int) -> str:
        """The node at that position."""
        return self._names[position]

    def release(self, position: int) -> None:
        """That node is gone; another may have its place, or memory would grow with every node that ever was."""
        if self._position.pop(self._names[position], None) is not None:
            self._vacant.append(position)
            self._lists.clear()

    def _place_of(self, name: str) -> int:
        if self._vacant:
            position = self._vacant.pop()
            self._names[position] = name
        else:
            position = len(self._names)
            self._names.append(name)
            if len(self._changed) == len(self._names):
                # All of it is looked at in each decision: not much longer than it must be.
                self._changed = _longer(self._changed, len(self._names) * 9 // 8 + 64, 0)
        self._position[name] = _written(position)
        self.placed += 1
        self._lists.clear()
        return position

    def forget_verdicts(self) -> None:
        """What nodes are worth has changed as a whole; where a request does not fit, it still does not."""
        for known in self._verdicts.values():
            known.judged[known.cost < np.inf] = NEVER

    def asked(self, nodes: Sequence[str]) -> Asked:
        """Where these nodes are in the arrays."""
        if len(nodes) < 2:
            return self.at(np.array([self.position(name) for name in nodes], np.int64))
        # kube-scheduler names the same nodes again and again, and a list is compared faster than looked up.
        known = self._lists.get(len(nodes))
        if known is not None and known[0] == nodes:
            return known[1]
        found = self.at(self._looked_up(nodes))
        self._lists[len(nodes)] = (list(nodes), found)
        return found

    def at(self, positions: Ints) -> Asked:
        """The nodes at these positions."""
        flags = np.zeros(len(self._changed), bool)
        flags[positions] = True
        return Asked(positions, flags)

    def position(self, name: str) -> int:
        """Where the node is in the arrays; UNKNOWN for a name never seen."""
        return _number(self._position.get(name, _NOWHERE))

    def _looked_up(self, nodes: Sequence[str]) -> Ints:
        try:
            # The quickest way through a list of names that Python has: one look-up each, and no integer is made.
            found: Iterable[bytes] = itemgetter(*nodes)(self._position)
        except KeyError:
            found = map(self._position.get, nodes, repeat(_NOWHERE))
        return np.frombuffer(b"".join(found), np.int64)

    def names(self, positions: Ints) -> list[str]:
        """The nodes at these positions."""
        return [self._names[position] for position in positions.tolist()]

    def verdicts(self, shape: Hashable, asked: Asked, judge: Judge) -> Verdicts:
        """The arrays for that shape, up to date where it is asked about: of these nodes those that have changed are
        judged."""
        known = self._verdicts.get(shape)
        if known is None or len(known.judged) != len(self._changed):
            known = self._verdicts[shape] = self._resized(known)
        stale = (self._changed > known.judged).nonzero()[0]
        stale = stale[asked.flags.take(stale)]
        if len(stale):
            known.cost[stale], known.code[stale] = judge(stale)
            known.judged[stale] = self._changes
        return known

    def _resized(self, known: Verdicts | None) -> Verdicts:
        """As long as ``_changed``: what was judged stays, the rest has never been."""
        length = len(self._changed)
        if known is None:
            known = Verdicts(np.zeros(1), np.zeros(1, np.int16), np.zeros(1, np.int64))
        sized = Verdicts(
            _longer(known.cost, length, np.inf),
            _longer(known.code, length, self._unknown),
            _longer(known.judged, length, NEVER),
        )
        sized.judged[UNKNOWN] = 0
        return sized


def _longer(values: NDArray[T], length: int, rest: float) -> NDArray[T]:
    """So many values, the last of which, for unknown nodes, stays the last."""
    longer = np.full(length, rest, values.dtype)
    longer[: len(values) - 1] = values[:-1]
    return longer


def _written(position: int) -> bytes:
    return position.to_bytes(8, sys.byteorder, signed=True)


def _number(written: bytes) -> int:
    return int.from_bytes(written, sys.byteorder, signed=True)


_NOWHERE: Final = _written(UNKNOWN)


def best(cost: NDArray[np.float64], asked: Flags, count: int) -> Ints:
    """The ``count`` (0 = all) positions asked about of least cost, best first; ties by position, +inf left out."""
    if count == 1:
        costs = np.where(asked, cost, np.inf)
        least = int(costs.argmin())
        return np.array([least] if costs[least] != np.inf else [], np.int64)
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
