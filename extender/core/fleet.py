"""All nodes as arrays: what filter and prioritize need of them, each node's row a place in the last axis.

A row is derived from a ``NodeState`` and nothing else; only rows of changed nodes are written anew.
"""

from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from extender.core import names
from extender.core.codes import CODE, UNKNOWN_NODE
from extender.core.inventory import Inventory
from extender.core.requests import LIMITS
from extender.core.values import Node, NodeState, SharedGpu

Ints = NDArray[np.int64]
K = TypeVar("K", bound=Hashable)

#: Places in the first axis of ``Rows.facts``. Free CPU in milli, free memory in bytes, free pod slots, free whole GPUs.
CPU: Final = 0
MEMORY: Final = 1
SLOTS: Final = 2
WHOLE: Final = 3
#: GPUs that can be held whole, free or not.
GPUS: Final = 4
#: MiB of a whole GPU; 1 where unknown, so that amounts in GPUs stay defined. No share lands there.
CARD: Final = 5
#: Index of that size in ``Fleet.sizes``, of the node's kind in ``Fleet.kinds``.
SIZE: Final = 6
KIND: Final = 7
#: Code of the reason why no share, no device at all, no whole GPU is given out; 0 = none.
SHARE_REFUSED: Final = 8
CLOSED: Final = 9
WHOLE_REFUSED: Final = 10
#: How a request for ``nvidia.com/gpu`` is judged: one of the three rules below.
RULE: Final = 11
#: Units of ``nvidia.com/gpu``, where they are not whole GPUs.
UNITS: Final = 12
#: 1 if ``nvidia.com/gpu`` holds whole GPUs here.
OWN: Final = 13
HAS_GPUS: Final = 14
KNOWN: Final = 15
#: 1 if no GPU is opened here for now.
BARRED: Final = 16
#: MiB of the node's largest GPU, as far as they are known: where they differ, CARD is what a new one counts for.
LARGEST_CARD: Final = 17
#: Bit of the backend that a pod must be prepared for; 0 = any pod will do.
NEEDS: Final = 18
#: 1 if more than a lack of room may keep a request from the node: it refuses, is barred, or has rules of its own.
SPECIAL: Final = 19
#: CPU in milli that the node can give out, free or not.
ALL_CPU: Final = 20
_FACTS: Final = 21

#: Facts that belong together: what a GPU that is opened takes of.
ROOM: Final = slice(CPU, WHOLE + 1)

COUNT_WHOLE: Final = 0
COUNT_UNITS: Final = 1
KUBE_SCHEDULER_COUNTS: Final = 2

#: Bit of a compute mode in ``Rows.takes``.
MODE_BIT: Final = {mode: 1 << index for index, mode in enumerate(names.COMPUTE_MODES)}
#: Bit of a backend in ``NEEDS``.
BACKEND_BIT: Final = {backend: 1 << index for index, backend in enumerate(LIMITS)}
_ALL_MODES: Final = sum(MODE_BIT.values())

#: Amounts beyond this are as good as this; sums of two stay within 64 bits.
LARGEST: Final = 1 << 61
_MOST_MIB: Final = 1 << 38


class Kind(NamedTuple):
    """Nodes that are alike for every request: one GPU model, one size, open to shares or not."""

    product: str | None
    card: int
    shareable: bool


class Rows:
    """Some nodes, one row each. The last axis of every array is that of the nodes: rules look at one fact of many, and
    what is true of a node goes for all its GPUs."""

    __slots__ = ("_table", "facts", "free", "size", "takes")

    #: [fact, node]
    facts: Ints
    #: [GPU, node] → free MiB: first of a GPU that could be opened, then of the node's shared GPUs in the order of
    #: ``NodeState.gpus``; 0 = absent or takes no share.
    free: Ints
    #: Index of the GPU's size in ``Fleet.sizes``; meaningless where ``takes`` is 0.
    size: Ints
    #: Compute modes that the GPU takes, as bits.
    takes: Ints

    def __init__(self, table: Ints) -> None:
        """``table``: what each row is made of, one after the other; the arrays are views of it."""
        gpus = (len(table) - _FACTS) // 3
        self._table = table
        self.facts = table[:_FACTS]
        self.free = table[_FACTS : _FACTS + gpus]
        self.size = table[_FACTS + gpus : _FACTS + 2 * gpus]
        self.takes = table[_FACTS + 2 * gpus :]

    def __len__(self) -> int:
        return len(self.facts[KNOWN])

    def at(self, positions: Ints) -> "Rows":
        """A copy of those rows."""
        return Rows(self._table.take(positions, axis=1))

    def put(self, position: int, row: "_Row") -> None:
        """Write one."""
        self._table[:, position] = row


#: Facts, then free, size and takes of as many GPUs as ``Rows`` has.
_Row = tuple[int, ...]


class _Written(NamedTuple):
    """What a row was made from, besides what changes with the pods there, and the row."""

    #: None: the node is not known.
    node: Node | None
    row: _Row


class _Numbers:
    """A number for each different row, below the number of rows: equal rows have one number."""

    def __init__(self) -> None:
        #: row → its number, and how many nodes have it
        self._known: dict[_Row, tuple[int, int]] = {}
        self._unused: list[int] = []

    def take(self, row: _Row) -> int:
        """One more node has this row."""
        number, nodes = self._known.get(row) or (self._unused.pop() if self._unused else len(self._known), 0)
        self._known[row] = (number, nodes + 1)
        return number

    def give_back(self, row: _Row) -> None:
        """One node less has it."""
        number, nodes = self._known.pop(row)
        if nodes > 1:
            self._known[row] = (number, nodes - 1)
        else:
            self._unused.append(number)


class Fleet:
    """The rows of all nodes by position, and the kinds and GPU sizes that occur."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, int] = {}
        self.sizes: dict[int, int] = {}
        #: The models of nodes whose GPUs have a known size.
        self.products: frozenset[str | None] = frozenset()
        self._rows = _blank(64, 4)
        #: By position.
        self._written: dict[int, _Written] = {}
        self._numbers = _Numbers()
        #: position → number of its row, once it is written
        self._number = np.zeros(64, np.int64)

    def put(self, position: int, state: NodeState | None) -> bool:
        """Write the node's row (None: the node is not known); whether anything about it is new.

        Most changes are none here: a share that was expected is assumed, recorded, then confirmed.
        """
        self._reserve(position, 0 if state is None else 1 + len(state.gpus))
        known = self._written.get(position)
        written = self._unknown() if state is None else self._of(state, known)
        if written == known:
            return False
        if known is not None:
            self._numbers.give_back(known.row)
        self._written[position] = written
        self._number[position] = self._numbers.take(written.row)
        self._rows.put(position, written.row)
        return True

    def distinct(self, positions: Ints) -> tuple[Ints, Ints]:
        """Places among these of nodes that stand for all, no two with equal rows; and for each which one it is like.

        Many nodes are alike, the empty ones first of all: whoever looks at many need not look at each.
        """
        number = self._number.take(positions)
        places = np.arange(len(positions))
        last = np.empty(len(self._number), np.int64)
        last[number] = places
        chosen = (last.take(number) == places).nonzero()[0]
        last[number[chosen]] = np.arange(len(chosen))
        return chosen, last.take(number)

    def row(self, state: NodeState) -> Rows:
        """One node that is not in the fleet, or stands differently there."""
        row = self._row(state, self._of_node(state.node), 1 + len(state.gpus))
        return Rows(np.array(row, np.int64)[:, None])

    def at(self, positions: Ints) -> Rows:
        """A copy of the rows at these positions."""
        return self._rows.at(positions)

    def facts(self, count: int) -> Ints:
        """Of the first ``count`` nodes; a view, valid until the next ``put``."""
        self._reserve(count - 1, 0)
        return self._rows.facts[:, :count]

    def _of(self, state: NodeState, known: _Written | None) -> _Written:
        """``known``: what was written last, of which the facts that follow from the Node alone may stand."""
        same_node = known is not None and known.node is state.node
        of_node = known.row[:_FACTS] if known is not None and same_node else self._of_node(state.node)
        return _Written(state.node, self._row(state, of_node, len(self._rows.free)))

    def _unknown(self) -> _Written:
        return _Written(None, (*_UNKNOWN.tolist(), *(0,) * 3 * len(self._rows.free)))

    def _row(self, state: NodeState, of_node: Sequence[int], gpus: int) -> _Row:
        """``of_node``: see ``_facts``; ``gpus``: how many there is a place for."""
        facts = self._facts(state, of_node)
        free, size, takes = self._gpus(state, gpus)
        return (*facts, *free, *size, *takes)

    def _gpus(self, state: NodeState, length: int) -> tuple[list[int], list[int], list[int]]:
        """What is free, sizes and modes, as ``Rows`` has them."""
        free, size, takes = [0] * length, [0] * length, [0] * length
        card = _card(state.inventory)
        size[0] = _index(self.sizes, card)
        if state.whole_free and not state.barred:
            free[0], takes[0] = card, _ALL_MODES
        for place, gpu in enumerate(state.gpus, start=1):
            takes[place] = _takes(gpu)
            if takes[place]:
                free[place] = gpu.free_mib
                size[place] = _index(self.sizes, gpu.memory_mib)
        return free, size, takes

    def _facts(self, state: NodeState, of_node: Sequence[int]) -> list[int]:
        """``of_node``: those that follow from the Node alone; the others in it do not matter."""
        facts = list(of_node)
        free = state.free
        facts[CPU] = clipped(free.get(names.CPU, 0))
        facts[MEMORY] = clipped(free.get(names.MEMORY, 0))
        facts[SLOTS] = clipped(free.get(names.PODS, 0))
        facts[WHOLE] = state.whole_free
        facts[CLOSED] = CODE[state.closed, False] if state.closed is not None else 0
        facts[BARRED] = state.barred
        facts[LARGEST_CARD] = max([facts[CARD], state.inventory.largest_mib, *[gpu.memory_mib for gpu in state.gpus]])
        refused = facts[SHARE_REFUSED] or facts[WHOLE_REFUSED] or facts[CLOSED] or state.barred
        facts[SPECIAL] = bool(refused or facts[RULE] != COUNT_WHOLE)
        return facts

    def _of_node(self, node: Node) -> list[int]:
        inventory = node.inventory
        facts = [0] * _FACTS
        facts[GPUS] = inventory.whole_gpus
        facts[CARD] = _card(inventory)
        facts[SIZE] = _index(self.sizes, facts[CARD])
        facts[KIND] = self._kind(kind_of(inventory))
        facts[SHARE_REFUSED] = _share_refused(inventory)
        facts[WHOLE_REFUSED] = CODE[inventory.unusable, False] if inventory.unusable is not None else 0
        facts[RULE] = _rule(inventory)
        facts[UNITS] = clipped(node.allocatable.get(names.GPU_RESOURCE, 0))
        facts[OWN] = inventory.whole_resource == names.GPU_RESOURCE
        facts[HAS_GPUS] = has_gpus(inventory)
        facts[KNOWN] = True
        facts[NEEDS] = BACKEND_BIT.get(inventory.enforcement or "", 0)
        facts[ALL_CPU] = clipped(node.allocatable.get(names.CPU, 0))
        return facts

    def _kind(self, kind: Kind) -> int:
        if kind.card > 1:
            self.products |= {kind.product}
        return _index(self.kinds, kind)

    def _reserve(self, position: int, gpus: int) -> None:
        most, nodes = self._rows.free.shape
        if position < nodes and gpus <= most:
            return
        grown = _blank(_doubled(nodes, position + 1), _doubled(most, gpus))
        for old, new in (
            (self._rows.free, grown.free),
            (self._rows.size, grown.size),
            (self._rows.takes, grown.takes),
        ):
            new[:most, :nodes] = old
        grown.facts[:, :nodes] = self._rows.facts
        self._rows = grown
        number = np.zeros(len(grown), np.int64)
        number[:nodes] = self._number
        self._number = number


def kind_of(inventory: Inventory) -> Kind:
    """What the node is like, whatever runs there."""
    return Kind(inventory.product, _card(inventory), _share_refused(inventory) == 0)


def has_gpus(inventory: Inventory) -> bool:
    """Whether there is anything on the node that a pod without GPUs should leave to others."""
    return inventory.physical_gpus != 0 or bool(inventory.units) or bool(inventory.slices)


def _card(inventory: Inventory) -> int:
    return min(inventory.memory_mib or 1, _MOST_MIB)


def clipped(amount: int) -> int:
    """The amount as a number that arrays can hold."""
    if -LARGEST <= amount <= LARGEST:
        return amount
    return LARGEST if amount > 0 else -LARGEST


def _share_refused(inventory: Inventory) -> int:
    if inventory.share_refusal is None and inventory.memory_mib is not None:
        return 0
    return CODE[inventory.share_refusal or "MemoryUnknown", False]


def _rule(inventory: Inventory) -> int:
    if inventory.mode == "dra":
        return KUBE_SCHEDULER_COUNTS
    own = inventory.whole_resource == names.GPU_RESOURCE
    return COUNT_WHOLE if own or not inventory.units else COUNT_UNITS


def _takes(gpu: SharedGpu) -> int:
    if gpu.takes(names.TIME_SLICING):
        return _ALL_MODES if gpu.compute_mode is None else MODE_BIT[names.TIME_SLICING]
    return MODE_BIT[names.SM_SHARING] if gpu.takes(names.SM_SHARING) else 0


def _index(known: dict[K, int], key: K) -> int:
    return known.setdefault(key, len(known))


def _doubled(size: int, needed: int) -> int:
    while size < needed:
        size *= 2
    return size


def _blank(nodes: int, gpus: int) -> Rows:
    rows = Rows(np.zeros((_FACTS + 3 * gpus, nodes), np.int64))
    rows.facts[:] = _UNKNOWN[:, None]
    return rows


def _unknown() -> Ints:
    facts = np.zeros(_FACTS, np.int64)
    facts[[CARD, SPECIAL]] = 1
    facts[[SHARE_REFUSED, WHOLE_REFUSED]] = UNKNOWN_NODE
    return facts


_UNKNOWN: Final = _unknown()
