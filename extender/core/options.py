"""Where a request could go: every node judged at once, and every choice of GPUs on the nodes that fit.

The array form of ``placement.fit``; a test holds the two against each other. ``fit`` speaks to people (numbers, one
node), this speaks to strategies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extender.core import fleet, names
from extender.core.codes import CODE, FITS, UNKNOWN_NODE
from extender.core.fleet import Ints, Rows
from extender.core.placement import RESERVATION_NEEDS
from extender.core.request import GpuRequest

Codes = NDArray[np.int16]
Flags = NDArray[np.bool_]


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
    def of(cls, rows: Rows) -> "Nodes":
        """The rows' columns by name."""
        facts = rows.facts
        return cls(
            facts[:, fleet.CPU],
            facts[:, fleet.WHOLE],
            rows.free,
            facts[:, fleet.CARD],
            facts[:, fleet.KIND],
            facts[:, fleet.GPUS],
        )


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of one request: one entry each in ``after`` and below it, sorted by node.

    On one node the GPUs that exist come before a new one, in the order that the strategy likes.
    """

    before: Nodes
    #: Which entry of ``before`` the choice is on.
    node: Ints
    after: Nodes
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
    return _first(
        (facts[:, fleet.SHARE_REFUSED], None),
        (facts[:, fleet.GPUS] < share.devices, CODE["GpuCount", False]),
        (_new_mib(rows, request, sizes) > facts[:, fleet.CARD], CODE["GpuTooSmall", False]),
        (facts[:, fleet.CLOSED], None),
        (missing > facts[:, fleet.WHOLE], CODE["GpuMemory", True]),
        (_openable(rows, request) < missing, CODE["ReservationRoom", True]),
    )


def _first(*checks: tuple[Ints | Flags, int | None]) -> Codes:
    """The code of the first check that holds; without a code of its own a check's values are codes."""
    found = np.zeros(len(checks[0][0]), np.int16)
    for values, code in reversed(checks):
        np.copyto(found, values if code is None else code, where=values != 0, casting="unsafe")
    return found


def _openable(rows: Rows, request: GpuRequest) -> Ints:
    """How many reservation pods there is room for beside the pod itself."""
    most: Ints | None = None
    for resource, column in ((names.CPU, fleet.CPU), (names.MEMORY, fleet.MEMORY), (names.PODS, fleet.SLOTS)):
        own = 1 if resource == names.PODS else request.resources.get(resource, 0)
        room = (rows.facts[:, column] - fleet.clipped(own)) // RESERVATION_NEEDS[resource]
        most = room if most is None else np.minimum(most, room)
    assert most is not None
    # Nothing is needed where nothing is opened, however little is left.
    return np.maximum(most, 0)


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


def options(
    rows: Rows, fits: Flags, request: GpuRequest, sizes: Sequence[int], *, fills_first: bool, tightest: bool
) -> Options:
    """Every choice on the nodes that fit.

    ``fills_first``: a GPU is opened only where the shared ones do not suffice. ``tightest``: in which order a share on
    several devices takes the GPUs that have room; a share on one device may take each.
    """
    if request.share is None:
        return _no_share(rows, fits, request)
    if request.share.devices == 1:
        return _one_device(rows, fits, request, sizes, fills_first, tightest)
    return _several_devices(rows, fits, request, sizes, fills_first, tightest)


def _no_share(rows: Rows, fits: Flags, request: GpuRequest) -> Options:
    before = Nodes.of(rows)
    node = np.flatnonzero(fits)
    whole = fleet.clipped(request.whole_gpus) * rows.facts[node, fleet.OWN]
    after = Nodes(
        before.cpu[node] - fleet.clipped(request.cpu_milli),
        before.whole[node] - whole,
        before.free[node],
        before.card[node],
        before.kind[node],
        before.gpus[node],
    )
    nothing = np.zeros((len(node), 0), np.int64)
    return Options(before, node, after, nothing, nothing, nothing, whole)


def _one_device(  # noqa: PLR0913 - as options
    rows: Rows, fits: Flags, request: GpuRequest, sizes: Sequence[int], fills_first: bool, tightest: bool
) -> Options:
    roomy, mib = _roomy(rows, request, sizes)
    new = _openable(rows, request).astype(bool) & (rows.facts[:, fleet.WHOLE] > 0)
    if fills_first:
        new &= ~roomy.any(axis=1)
    mib = np.column_stack((mib, _new_mib(rows, request, sizes)))
    node, column = np.nonzero(np.column_stack((roomy, new)) & fits[:, None])
    is_new = column == roomy.shape[1]
    columns = np.where(is_new, -1, column)
    room = rows.free[node, np.where(is_new, 0, column)]
    in_order = np.lexsort((np.where(is_new, fleet.LARGEST, room if tightest else -room), node))
    node, column, columns = node[in_order], column[in_order], columns[in_order]
    return _with_devices(rows, request, node, columns[:, None], mib[node, column][:, None])


def _several_devices(  # noqa: PLR0913 - as options
    rows: Rows, fits: Flags, request: GpuRequest, sizes: Sequence[int], fills_first: bool, tightest: bool
) -> Options:
    share = request.share
    assert share is not None
    roomy, mib = _roomy(rows, request, sizes)
    rest = rows.free - mib if tightest else -rows.free
    order = np.argsort(np.where(roomy, rest, fleet.LARGEST), axis=1, kind="stable")
    found = roomy.sum(axis=1)
    openable = np.minimum(_openable(rows, request), rows.facts[:, fleet.WHOLE])
    new_mib = _new_mib(rows, request, sizes)
    nodes, columns, amounts = [], [], []
    for on in range(min(share.devices, roomy.shape[1]), -1, -1):
        enough = fits & (found >= on) & (share.devices - on <= openable | (on == share.devices))
        node = np.flatnonzero(enough & (found <= on) if fills_first and on < share.devices else enough)
        chosen = order[node, :on]
        fresh = (len(node), share.devices - on)
        nodes.append(node)
        columns.append(np.column_stack((chosen, np.full(fresh, -1))))
        amounts.append(
            np.column_stack((mib[node[:, None], chosen], np.repeat(new_mib[node, None], fresh[1], 1)))
        )
    node = np.concatenate(nodes)
    by_node = np.argsort(node, kind="stable")
    return _with_devices(
        rows, request, node[by_node], np.concatenate(columns)[by_node], np.concatenate(amounts)[by_node]
    )


def _with_devices(rows: Rows, request: GpuRequest, node: Ints, columns: Ints, mib: Ints) -> Options:
    before = Nodes.of(rows)
    count, width = len(node), rows.free.shape[1]
    fresh = columns < 0
    opened = fresh.sum(axis=1)
    card = before.card[node]
    free = np.zeros((count, width + columns.shape[1]), np.int64)
    free[:, :width] = before.free[node]
    # New GPUs get the columns behind the existing ones, each full until the share is taken off.
    column = np.where(fresh, width + np.arange(columns.shape[1]), columns)
    free[:, width:][fresh] = np.broadcast_to(card[:, None], fresh.shape)[fresh]
    choice = np.arange(count)[:, None]
    holes = free[choice, column]
    free[choice, column] = holes - mib
    after = Nodes(
        before.cpu[node] - fleet.clipped(request.cpu_milli) - RESERVATION_NEEDS[names.CPU] * opened,
        before.whole[node] - opened,
        free,
        card,
        before.kind[node],
        before.gpus[node],
    )
    return Options(before, node, after, columns, holes, mib, np.zeros(count, np.int64))
