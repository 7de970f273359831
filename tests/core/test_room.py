"""What counts as more room on a node, one thing at a time."""

from typing import Any

import pytest

from extender.core.names import SM_SHARING, TIME_SLICING
from extender.core.nodereader import read_nodes
from extender.core.room import has_more
from extender.core.values import GpuState, NodeState, SharedGpu
from tests.builders import make_node

GPU = SharedGpu("share-1", "GPU-1", 1000, GpuState.READY, TIME_SLICING, (), 600)
FULL = GPU._replace(id="share-2", uuid="GPU-2", used_mib=1000)


def state(mib: int | None = 1000, **changes: Any) -> NodeState:
    (node,) = read_nodes([make_node("n").gpus(4, mib=mib).build()])
    whole = NodeState(node, (GPU, FULL), 1, 1, 1, {"cpu": 10, "pods": 5})
    return whole._replace(**changes)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, state()),
        (state(mib=None), state()),
        (state(closed="ReservationLost"), state()),
        (state(closed="ShareUnreadable"), state()),
        (state(closed="ReservationLost"), state(closed="ShareUnreadable")),  # to pods that ask for no GPU
        (state(closed="ShareUnreadable", free={"cpu": 9, "pods": 5}), state(closed="ShareUnreadable")),
        (state(barred=True), state()),
        (state(whole_free=0), state()),
        (state(free={"cpu": 9, "pods": 5}), state()),
        (state(free={"pods": 5}), state()),
        (state(gpus=(GPU._replace(used_mib=601), FULL)), state()),
        (state(gpus=(FULL,)), state()),
        (state(gpus=(GPU._replace(state=GpuState.CLOSING), FULL)), state()),
        (state(gpus=(GPU._replace(usable=False), FULL)), state()),
        (state(gpus=(GPU._replace(memory_mib=900), FULL)), state()),
        (state(gpus=(GPU._replace(compute_mode=SM_SHARING), FULL)), state()),
        (state(), state(gpus=(GPU._replace(compute_mode=None), FULL))),
        (state(), state(gpus=(GPU, FULL, GPU._replace(id="share-3", used_mib=900)))),  # one freed, one opened
    ],
)
def test_more(before: NodeState | None, now: NodeState) -> None:
    assert has_more(before, now)
    assert not has_more(now, now)


@pytest.mark.parametrize(
    "now",
    [
        state(closed="ReservationLost"),
        state(closed="ReservationLost", whole_free=4),
        state(closed="ShareUnreadable"),
        state(barred=True),
        state(whole_free=0),
        state(free={"cpu": 9, "pods": 4}),
        state(gpus=(GPU._replace(used_mib=700), FULL)),
        state(gpus=(GPU, FULL._replace(compute_mode=SM_SHARING))),
        state(gpus=(GPU, FULL, FULL._replace(id="share-3"))),
        state(gpus=(GPU,)),
        state(gpus=(GPU, FULL, GPU._replace(id="share-3", used_mib=1)), whole_free=0),
        state(gpus=(FULL, GPU._replace(id="other"))),
        state(gpus=(GPU._replace(state=GpuState.LOST), FULL)),
    ],
)
def test_no_more(now: NodeState) -> None:
    assert not has_more(state(), now)
