"""Where a request could go: every node judged at once, and every choice of GPUs on the nodes that fit.

The array form of ``placement.fit``; a test holds the two against each other. ``fit`` speaks to people (numbers, one
node), this speaks to strategies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extender.core import fleet, names
from extender.core.codes import CODE, FITS, UNKNOWN_NODE
from extender.core.fleet import Ints, Rows
from extender.core.placement import RESERVATION_NEEDS
from extender.core.requests import GpuRequest

Codes = NDArray[np.int16]
Flags = NDArray[np.bool_]


#: What a reservation pod needs, in the order of ``fleet.ROOM``.
_RESERVATION: Final = np.array([RESERVATION_NEEDS[r] for r in (names.CPU, names.MEMORY, names.PODS)], np.int64)


class Order(Enum):
    """In which order a node's shared GPUs are tried; equal ones by id."""

    TIGHTEST = "tightest"
    EMPTIEST = "emptiest"
    BY_ID = "by id"


_SIGN: Final = {Order.TIGHTEST: 1, Order.EMPTIEST: -1, Order.BY_ID: 0}


@dataclass(frozen=True, slots=True)
class Nodes:
    """What strategies see of nodes, one entry each."""

    #: Free CPU in milli.
    cpu: Ints
    #: Free whole GPUs.
    whole: Ints
    #: Free MiB of each shared GPU that takes shares; 0 fills up.
    free: Ints
    #: MiB of a whole GPU, at least 1.
    card: Ints
    #: Index in ``Fleet.kinds``.
    kind: Ints
    #: GPUs that can be held whole, free or not.
    gpus: Ints

    @classmethod
    def of(cls, facts: Ints, free: Ints) -> "Nodes":
        """From the like-named arrays of ``Rows``."""
        return cls(
            facts[:, fleet.CPU],
            facts[:, fleet.WHOLE],
            free,
            facts[:, fleet.CARD],
            facts[:, fleet.KIND],
            facts[:, fleet.GPUS],
        )


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of one request, sorted by node.

    On one node the GPUs that exist come before a new one, in the order that the strategy likes.
    """

    #: The nodes before, then one entry for each choice: its node after.
    states: Nodes
    #: Which of the nodes before each choice is on.
    node: Ints
    #: For each device of a share: the shared GPU's column, or -1 for a new one; existing ones first.
    columns: Ints
    #: For each device: MiB free there before, and MiB taken.
    holes: Ints
    mib: Ints
    #: Whole GPUs taken, besides those opened for shares.
    whole: Ints

    @property
    def opened(self) -> Ints:
        """How many GPUs each choice opens."""
        opened: Ints = (self.columns < 0).sum(axis=1)
        return opened

    def before(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of values of ``states``, those of each choice's node before."""
        return values[self.node]

    def after(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of values of ``states``, those after each choice."""
        return values[len(values) - len(self.node) :]


def codes(rows: Rows, request: GpuRequest, sizes: Sequence[int]) -> Codes:
    """FITS or the code of the reason that ``fit`` would give, for each row.

    ``request`` asks for a share, for ``nvidia.com/gpu``, or for no GPU at all.
    """
    if request.share is not None:
        found = _share_codes(rows, request, sizes)
    elif request.gpus:
        found = _whole_codes(rows, request.whole_gpus)
    else:
        found = np.zeros(len(rows), np.int16)
    found[rows.facts[:, fleet.KNOWN] == 0] = UNKNOWN_NODE
    return found


def is_plain(request: GpuRequest) -> bool:
    """Whether ``codes`` can judge it; other GPU resources are left to ``fit``."""
    return request.share is not None or all(resource == names.GPU_RESOURCE for resource, _ in request.gpus)


def _whole_codes(rows: Rows, count: int) -> Codes:
    facts = rows.facts
    count = fleet.clipped(count)
    whole = _first(
        (facts[:, fleet.WHOLE_REFUSED], None),
        (facts[:, fleet.GPUS] < count, CODE["GpuCount", False]),
        (facts[:, fleet.CLOSED], None),
        (facts[:, fleet.WHOLE] < count, CODE["WholeGpus", True]),
    )
    rule = facts[:, fleet.RULE]
    whole[rule != fleet.COUNT_WHOLE] = FITS
    short = (rule == fleet.COUNT_UNITS) & (facts[:, fleet.UNITS] < count)
    whole[short] = CODE["UnitCount", False]
    return whole


def _share_codes(rows: Rows, request: GpuRequest, sizes: Sequence[int]) -> Codes:
    facts = rows.facts
    share = request.share
    assert share is not None
    roomy, _ = _roomy(rows, request, sizes)
    missing = np.maximum(0, fleet.clipped(share.devices) - roomy.sum(axis=1))
    found = np.zeros(len(rows), np.int16)
    found[_openable(rows, request) < missing] = CODE["ReservationRoom", True]
    found[(facts[:, fleet.BARRED] != 0) & (missing > 0)] = CODE["ReservationFailed", False]
    found[missing > facts[:, fleet.WHOLE]] = CODE["GpuMemory", True]
    never = (facts[:, fleet.GPUS] < share.devices) | (_new_mib(rows, request, sizes) > facts[:, fleet.CARD])
    if not (never.any() or facts[:, fleet.REFUSALS].any()):
        return found
    return _first(
        (facts[:, fleet.SHARE_REFUSED], None),
        (facts[:, fleet.GPUS] < share.devices, CODE["GpuCount", False]),
        (never, CODE["GpuTooSmall", False]),
        (facts[:, fleet.CLOSED], None),
        (found.astype(np.int64), None),
    )


def _first(*checks: tuple[Ints | Flags, int | None]) -> Codes:
    """The code of the first check that holds; without a code of its own a check's values are codes."""
    found = np.zeros(len(checks[0][0]), np.int16)
    for values, code in reversed(checks):
        np.copyto(found, values if code is None else code, where=values != 0, casting="unsafe")
    return found


def _openable(rows: Rows, request: GpuRequest) -> Ints:
    """How many reservation pods there is room for beside the pod itself, where they may be opened."""
    own = [fleet.clipped(request.resources.get(resource, 0)) for resource in (names.CPU, names.MEMORY)]
    most: Ints = ((rows.facts[:, fleet.ROOM] - [*own, 1]) // _RESERVATION).min(axis=1)
    openable: Ints = np.maximum(most, 0) * (rows.facts[:, fleet.BARRED] == 0)
    return openable


def _amounts(request: GpuRequest, sizes: Sequence[int]) -> Ints:
    """MiB on one device, for each size of GPU."""
    share = request.share
    assert share is not None
    return np.array([fleet.clipped(share.mib_of(size)) for size in sizes], np.int64)


def _new_mib(rows: Rows, request: GpuRequest, sizes: Sequence[int]) -> Ints:
    amounts: Ints = _amounts(request, sizes)[rows.facts[:, fleet.SIZE]]
    return amounts


def _roomy(rows: Rows, request: GpuRequest, sizes: Sequence[int]) -> tuple[Flags, Ints]:
    """Which shared GPUs have room, and how much the share takes there."""
    share = request.share
    assert share is not None
    mib = _amounts(request, sizes)[rows.size]
    return ((rows.takes & fleet.MODE_BIT[share.compute_mode]) != 0) & (rows.free >= mib), mib


def options(rows: Rows, request: GpuRequest, sizes: Sequence[int], *, fills_first: bool, order: Order) -> Options:
    """Every choice on nodes that fit: at least one on each.

    ``fills_first``: a GPU is opened only where the shared ones do not suffice. A share on one device may take each
    GPU that has room; one on several takes them in ``order``.
    """
    if request.share is None:
        return _no_share(rows, request)
    if request.share.devices == 1:
        return _one_device(rows, request, sizes, fills_first, order)
    return _several_devices(rows, request, sizes, fills_first, order)


def _no_share(rows: Rows, request: GpuRequest) -> Options:
    node = np.arange(len(rows))
    whole = fleet.clipped(request.whole_gpus) * rows.facts[:, fleet.OWN]
    facts = np.concatenate((rows.facts, rows.facts))
    free = np.concatenate((rows.free, rows.free))
    facts[len(rows) :, fleet.CPU] -= fleet.clipped(request.cpu_milli)
    facts[len(rows) :, fleet.WHOLE] -= whole
    nothing = np.zeros((len(rows), 0), np.int64)
    return Options(Nodes.of(facts, free), node, nothing, nothing, nothing, whole)


def _one_device(rows: Rows, request: GpuRequest, sizes: Sequence[int], fills_first: bool, order: Order) -> Options:
    roomy, mib = _roomy(rows, request, sizes)
    width = roomy.shape[1]
    allowed = np.empty((len(rows), width + 1), bool)
    allowed[:, :width] = roomy
    allowed[:, width] = (rows.facts[:, fleet.WHOLE] > 0) & (_openable(rows, request) > 0)
    if fills_first:
        allowed[:, width] &= ~roomy.any(axis=1)
    node, column = np.nonzero(allowed)
    fresh = column == width
    columns = np.where(fresh, -1, column)
    amounts = np.where(fresh, _new_mib(rows, request, sizes)[node], mib[node, columns])
    if order is not Order.BY_ID:
        in_order = np.lexsort((np.where(fresh, fleet.LARGEST, _keys(rows, order)[node, columns]), node))
        columns, amounts = columns[in_order], amounts[in_order]
    return _with_devices(rows, request, node, columns[:, None], amounts[:, None])


def _keys(rows: Rows, order: Order) -> Ints:
    """Smaller goes first; equal ones by column."""
    return rows.free * _SIGN[order]


def _several_devices(rows: Rows, request: GpuRequest, sizes: Sequence[int], fills_first: bool, order: Order) -> Options:
    share = request.share
    assert share is not None
    roomy, mib = _roomy(rows, request, sizes)
    in_order = np.argsort(np.where(roomy, _keys(rows, order), fleet.LARGEST), axis=1, kind="stable")
    found = roomy.sum(axis=1)
    openable = np.minimum(_openable(rows, request), rows.facts[:, fleet.WHOLE])
    new_mib = _new_mib(rows, request, sizes)
    nodes, columns, amounts = [], [], []
    for on in range(min(share.devices, roomy.shape[1]), -1, -1):
        enough = (found >= on) & (share.devices - on <= openable | (on == share.devices))
        node = np.flatnonzero(enough & (found <= on) if fills_first and on < share.devices else enough)
        chosen = in_order[node, :on]
        fresh = (len(node), share.devices - on)
        nodes.append(node)
        columns.append(np.column_stack((chosen, np.full(fresh, -1))))
        amounts.append(np.column_stack((mib[node[:, None], chosen], np.repeat(new_mib[node, None], fresh[1], 1))))
    node = np.concatenate(nodes)
    by_node = np.argsort(node, kind="stable")
    return _with_devices(
        rows, request, node[by_node], np.concatenate(columns)[by_node], np.concatenate(amounts)[by_node]
    )


def _with_devices(rows: Rows, request: GpuRequest, node: Ints, columns: Ints, mib: Ints) -> Options:
    count, width = rows.free.shape
    fresh = columns < 0
    opened = fresh.sum(axis=1)
    facts = np.concatenate((rows.facts, rows.facts[node]))
    free = np.zeros((len(facts), width + columns.shape[1]), np.int64)
    free[:count, :width] = rows.free
    after = free[count:]
    after[:, :width] = rows.free[node]
    # New GPUs get the columns behind the existing ones, each full until the share is taken off.
    after[:, width:] = fresh * facts[count:, fleet.CARD, None]
    column = np.where(fresh, width + np.arange(columns.shape[1]), columns)
    choice = np.arange(len(node))[:, None]
    holes = after[choice, column]
    after[choice, column] = holes - mib
    facts[count:, fleet.CPU] -= fleet.clipped(request.cpu_milli) + RESERVATION_NEEDS[names.CPU] * opened
    facts[count:, fleet.WHOLE] -= opened
    return Options(Nodes.of(facts, free), node, columns, holes, mib, np.zeros(len(node), np.int64))
