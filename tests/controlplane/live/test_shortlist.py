"""With the manifests' weight the extender's first node wins, however many more it names: they name one."""

from collections.abc import Iterator

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.scene import Scene
from tests.controlplane.stage import QUICK, Served, Stage


@pytest.fixture(scope="module", params=[1, 16])
def extender(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Served]:
    yield stage.start_extender(**QUICK, shortlist=request.param)
    stage.stop()


async def test_what_other_plugins_prefer_does_not_change_the_node(scene: Scene) -> None:
    """The emptier node is better to all of them: less is asked of it, no taint, and the pod wants its zone."""
    packed = await scene.add(
        make_node("packed").cpu(8).gpus(2, mib=81_920).taint("avoid", effect="PreferNoSchedule").label("zone", "a")
    )
    empty = await scene.add(make_node("empty").cpu(64).gpus(2, mib=81_920).label("zone", "b"))
    first = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [first]}}
    await scene.submit(make_pod("first").gpu_fraction("0.5").spec(affinity={"nodeAffinity": required}))
    await scene.run("first")

    wish = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": wish}]}
    await scene.submit(make_pod("second").gpu_fraction("0.5").spec(affinity={"nodeAffinity": preferred}))
    await scene.run("second")
    assert (len(scene.cards(packed)), len(scene.cards(empty))) == (1, 0)
