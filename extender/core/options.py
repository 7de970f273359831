"""Where a request could go: every node judged at once, and every choice of GPUs on the nodes that have room.

The array form of ``placement.fit``; a test holds the two against each other. ``fit`` speaks to people (numbers, one
node), this speaks to strategies.
"""

from collections.abc import Collection
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from extender.core import fleet, names
from extender.core.accounting import RESERVATION_LOST, SHARE_UNREADABLE
from extender.core.codes import CODE, UNKNOWN_NODE
from extender.core.fleet import Ints, Rows
from extender.core.placement import RESERVATION_NEEDS, is_kept_out
from extender.core.requests import GpuRequest, Share

Codes = NDArray[np.int16]
Flags = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

#: What a reservation pod needs, in the order of ``fleet.ROOM``: besides, it takes a GPU.
_RESERVATION: Final = np.array([[RESERVATION_NEEDS[r] for r in (names.CPU, names.MEMORY, names.PODS)] + [1]]).T

_GPU_COUNT: Final = np.int16(CODE["GpuCount", False])
_WHOLE_GPUS: Final = np.int16(CODE["WholeGpus", True])
_UNIT_COUNT: Final = np.int16(CODE["UnitCount", False])
_GPU_TOO_SMALL: Final = np.int16(CODE["GpuTooSmall", False])
_GPU_MEMORY: Final = np.int16(CODE["GpuMemory", True])
_RESERVATION_ROOM: Final = np.int16(CODE["ReservationRoom", True])
_RESERVATION_FAILED: Final = np.int16(CODE["ReservationFailed", False])
_NOT_PREPARED: Final = np.int16(CODE["NotPrepared", False])


class Order(Enum):
    """In which order a node's shared GPUs are tried; equal ones by id."""

    TIGHTEST = "tightest"
    EMPTIEST = "emptiest"
    BY_ID = "by id"


#: What makes the MiB that would be left free a key of that order.
SIGN: Final = {Order.TIGHTEST: 1, Order.EMPTIEST: -1, Order.BY_ID: 0}


class Nodes(NamedTuple):
    """What strategies see of nodes, one entry each."""

    #: Free CPU in milli.
    cpu: Ints
    #: Free whole GPUs.
    whole: Ints
    #: [GPU, node] → free MiB of each shared GPU that takes shares; 0 fills up.
    free: Ints
    #: MiB of a whole GPU, at least 1.
    card: Ints
    #: Index in ``Fleet.kinds``.
    kind: Ints
    #: GPUs that can be held whole, and CPU in milli, free or not.
    gpus: Ints
    all_cpu: Ints

    @classmethod
    def of(cls, facts: Ints, free: Ints) -> "Nodes":
        """From the like-named arrays of ``Rows``."""
        return cls(
            facts[fleet.CPU],
            facts[fleet.WHOLE],
            free[1:],
            facts[fleet.CARD],
            facts[fleet.KIND],
            facts[fleet.GPUS],
            facts[fleet.ALL_CPU],
        )


class Options(NamedTuple):
    """The choices of one request, sorted by node. Parts of GPUs; or else one choice for each node, in their order, on
    no device.

    What a node's rest is after a choice depends on the choice only by how many GPUs it opens: ``cpu`` and ``whole``
    have one row for before ([0]) and one for after with i GPUs opened ([1 + i]).
    """

    #: Whether the choices are parts of GPUs.
    is_share: bool
    #: The nodes before.
    nodes: Nodes
    #: Free CPU in milli and free whole GPUs of each node, before and after.
    cpu: Ints
    whole: Ints
    #: Which of the nodes each choice is on, and how many GPUs it opens there.
    node: Ints
    opened: Ints
    #: MiB of a whole GPU there.
    card: Ints
    #: Of shares: where ``cpu`` and ``whole`` have what is left after each choice, counted row by row.
    rest: Ints
    #: [device, choice] → the shared GPU, as ``Nodes.free`` counts them, or -1 for a new one; existing ones first.
    on: Ints
    #: [device, choice] → MiB taken.
    mib: Ints
    #: [before or after, device, choice] → MiB free there.
    free: Ints

    @property
    def holes(self) -> Ints:
        """[device, choice] → MiB free there before."""
        holes: Ints = self.free[0]
        return holes

    @property
    def left(self) -> Ints:
        """[device, choice] → MiB free there after."""
        left: Ints = self.free[1]
        return left

    def before(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of values of the nodes, those of each choice's."""
        return values.take(self.node) if self.is_share else values

    def after(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of values with a row for before and each number of GPUs opened, those after each choice."""
        found: NDArray[Any] = values.take(self.rest) if self.is_share else values[1]
        return found

    def taken(self) -> NDArray[np.float64]:
        """What each choice takes, in GPUs."""
        if self.is_share:
            return over_devices(self.mib) / self.card
        taken: NDArray[np.float64] = (self.whole[0] - self.whole[1]).astype(float)
        return taken


def over_devices(values: NDArray[T]) -> NDArray[T]:
    """The sum over the devices of each choice; most have one."""
    found: NDArray[T] = values[0] if len(values) == 1 else np.add.reduce(values)
    return found


class Room(NamedTuple):
    """How much room there is for a share, for each node."""

    #: [GPU, node], as in ``Rows.free`` → MiB on each, and whether it has room for them. A new GPU comes first.
    mib: Ints
    roomy: Flags
    #: How many shared GPUs have, and how many can be opened.
    found: Ints
    openable: Ints

    @classmethod
    def of(cls, rows: Rows, request: GpuRequest, sizes: tuple[int, ...]) -> "Room | None":
        """None where the request is for no share."""
        share = request.share
        if share is None:
            return None
        mib = _amounts(share, sizes).take(rows.size)
        roomy = (rows.free >= mib) & ((rows.takes & fleet.MODE_BIT[share.compute_mode]) != 0)
        room = (rows.facts[fleet.ROOM] - _own(request.cpu_milli, request.memory_bytes)) // _RESERVATION
        openable = np.maximum(np.minimum.reduce(room), 0) * roomy[0]
        roomy[0] = openable
        return cls(mib, roomy, np.add.reduce(roomy[1:]), openable)

    def only(self, nodes: Flags) -> "Room":
        """The same, with no room on all other nodes."""
        return Room(self.mib, self.roomy & nodes, self.found * nodes, self.openable * nodes)


@lru_cache(maxsize=1024)
def _amounts(share: Share, sizes: tuple[int, ...]) -> Ints:
    """MiB on a GPU of each size. Where no node has a GPU there is no size; every row points at the first one."""
    return np.array([fleet.clipped(share.mib_of(size)) for size in sizes] or [0], np.int64)


@lru_cache(maxsize=1024)
def _own(cpu_milli: int, memory_bytes: int) -> Ints:
    """What a pod takes for itself of ``fleet.ROOM``."""
    return np.array([[fleet.clipped(cpu_milli)], [fleet.clipped(memory_bytes)], [1], [0]], np.int64)


def codes(rows: Rows, request: GpuRequest, room: Room | None) -> Codes:
    """FITS or the code of the reason that ``fit`` would give, for each row.

    ``request`` asks for a share, for ``nvidia.com/gpu``, or for no GPU at all.
    """
    if request.share is not None:
        assert room is not None
        return _share_codes(rows, request.share, request.backends, room)
    found = _whole_codes(rows, request.whole_gpus) if request.gpus else _closed_codes(rows, request)
    if np.count_nonzero(rows.facts[fleet.SPECIAL]):
        found[rows.facts[fleet.KNOWN] == 0] = UNKNOWN_NODE
    return found


def is_plain(request: GpuRequest) -> bool:
    """Whether ``codes`` can judge it; other GPU resources are left to ``fit``."""
    return request.share is not None or all(resource == names.GPU_RESOURCE for resource, _ in request.gpus)


def _whole_codes(rows: Rows, count: int) -> Codes:
    """The last reason that is written speaks."""
    facts = rows.facts
    count = fleet.clipped(count)
    is_special = np.count_nonzero(facts[fleet.SPECIAL])
    found: Codes = (facts[fleet.WHOLE] < count) * _WHOLE_GPUS  # FITS is 0.
    if is_special:
        _refuse(found, facts[fleet.CLOSED])
    found[facts[fleet.GPUS] < count] = _GPU_COUNT
    if is_special:
        _refuse(found, facts[fleet.WHOLE_REFUSED])
        counted = facts[fleet.RULE] != fleet.COUNT_WHOLE
        found[counted] = facts[fleet.CLOSED, counted]
        short = (facts[fleet.RULE] == fleet.COUNT_UNITS) & (facts[fleet.UNITS] < count)
        found[short] = _UNIT_COUNT
    return found


def _closed_codes(rows: Rows, request: GpuRequest) -> Codes:
    """For a pod that asks for no GPU: most requests, and hardly ever is a node closed."""
    closed = rows.facts[fleet.CLOSED]
    found = np.zeros(len(rows), np.int16)
    if np.count_nonzero(closed):
        for reason in (RESERVATION_LOST, SHARE_UNREADABLE):
            if is_kept_out(reason, request):
                found[closed == CODE[reason, False]] = CODE[reason, False]
    return found


def _share_codes(rows: Rows, share: Share, backends: Collection[str], room: Room) -> Codes:
    """The last reason that is written speaks."""
    facts = rows.facts
    devices = fleet.clipped(share.devices)
    missing, new_mib = devices - room.found, room.mib[0]
    short = missing > room.openable
    found: Codes = short * _RESERVATION_ROOM  # FITS is 0.
    if np.count_nonzero(short):
        found[short & ((missing > facts[fleet.WHOLE]) | (new_mib > facts[fleet.CARD]))] = _GPU_MEMORY
    never = (facts[fleet.GPUS] < devices) | (new_mib > facts[fleet.LARGEST_CARD])
    is_special = np.count_nonzero(facts[fleet.SPECIAL])
    if is_special:
        found[(facts[fleet.BARRED] != 0) & (found == _RESERVATION_ROOM)] = _RESERVATION_FAILED
        _refuse(found, facts[fleet.CLOSED])
    if np.count_nonzero(never):
        found[never] = np.where(facts[fleet.GPUS, never] < devices, _GPU_COUNT, _GPU_TOO_SMALL)
    needs = facts[fleet.NEEDS]
    if np.count_nonzero(needs):
        unprepared = needs & ~sum(fleet.BACKEND_BIT[backend] for backend in backends)
        found[unprepared != 0] = _NOT_PREPARED
    if is_special:
        _refuse(found, facts[fleet.SHARE_REFUSED])
    return found


def _refuse(found: Codes, codes: Ints) -> None:
    """Where there is such a code it speaks instead of what was found."""
    np.copyto(found, codes, where=codes != 0, casting="unsafe")


def options(rows: Rows, request: GpuRequest, room: Room | None, *, fills_first: bool, order: Order) -> Options:
    """Every choice: of a share at least one on each node that has room and none on others, else one on each node.

    ``fills_first``: a GPU is opened only where the shared ones do not suffice. A share on one device may take each
    GPU that has room; one on several takes them in ``order``.
    """
    if request.share is None or room is None:
        return _no_share(rows, request)
    if request.share.devices == 1:
        return _one_device(rows, request, room, fills_first)
    return _several_devices(rows, request, room, fills_first, order)


def _no_share(rows: Rows, request: GpuRequest) -> Options:
    nodes = Nodes.of(rows.facts, rows.free)
    cpu = nodes.cpu - _cpu_taken(request.cpu_milli, 0)
    whole = nodes.whole - _opening(0)
    if request.gpus:
        whole[1] -= fleet.clipped(request.whole_gpus) * rows.facts[fleet.OWN]
    none = np.zeros((2, 0, len(rows)), np.int64)
    each, opened = np.arange(len(rows)), np.zeros(len(rows), np.int64)
    return Options(False, nodes, cpu, whole, each, opened, nodes.card, each, none[0], none[0], none)


def _one_device(rows: Rows, request: GpuRequest, room: Room, fills_first: bool) -> Options:
    allowed = room.roomy
    if fills_first:
        allowed = allowed.copy()
        allowed[0] &= room.found == 0
    node, gpu = allowed.T.nonzero()
    at = (gpu * len(rows) + node)[None]
    opened = (gpu == 0) * 1
    return _share(rows, request, node, opened, gpu[None] - 1, rows.free.take(at), room.mib.take(at))


def _several_devices(rows: Rows, request: GpuRequest, room: Room, fills_first: bool, order: Order) -> Options:
    assert request.share is not None
    devices = request.share.devices
    roomy, left = room.roomy[1:], (rows.free - room.mib)[1:]
    in_order = np.argsort(np.where(roomy, left * SIGN[order], fleet.LARGEST), axis=0, kind="stable")
    found = room.found
    nodes, shared = [], []
    for on in range(min(devices, len(roomy)), -1, -1):
        enough = (found >= on) & (devices - on <= room.openable | (on == devices))
        node = np.flatnonzero(enough & (found <= on) if fills_first and on < devices else enough)
        nodes.append(node)
        shared.append(np.concatenate((in_order[:on, node], np.full((devices - on, len(node)), -1))))
    node, gpu = np.concatenate(nodes), np.concatenate(shared, axis=1)
    by_node = np.argsort(node, kind="stable")
    node, gpu = node[by_node], gpu[:, by_node]
    at = (gpu + 1, node)
    return _share(rows, request, node, (gpu < 0).sum(axis=0), gpu, rows.free[at], room.mib[at])


def _share(  # noqa: PLR0913, PLR0917 - the fields of Options
    rows: Rows, request: GpuRequest, node: Ints, opened: Ints, on: Ints, holes: Ints, mib: Ints
) -> Options:
    nodes = Nodes.of(rows.facts, rows.free)
    most = int(opened.max()) if np.count_nonzero(opened) else 0
    cpu = nodes.cpu - _cpu_taken(request.cpu_milli, most)
    whole = nodes.whole - _opening(most)
    card = nodes.card.take(node)
    rest = (1 + opened) * len(nodes.cpu) + node
    free = np.empty((2, *mib.shape), np.int64)
    free[0] = holes
    np.subtract(holes, mib, out=free[1])
    return Options(True, nodes, cpu, whole, node, opened, card, rest, on, mib, free)


@lru_cache(maxsize=128)
def _opening(most: int) -> Ints:
    """How many GPUs are opened in each row of ``Options.cpu``: none before, and none to the most after."""
    return np.array([[0], *([opened] for opened in range(most + 1))])


@lru_cache(maxsize=1024)
def _cpu_taken(cpu_milli: int, most: int) -> Ints:
    """CPU in milli that the pod and what it opens take, in each of these rows."""
    taken = RESERVATION_NEEDS[names.CPU] * _opening(most)
    taken[1:] += fleet.clipped(cpu_milli)
    return taken
