"""The last of everything: no pod is refused by a kubelet, none waits for what cannot be."""

from tests.builders import make_node, make_pod
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene

A100 = 81920


async def test_the_last_pod_slot(scene: Scene) -> None:
    """A share that opens a card needs two slots: its own and the reservation's."""
    one = await scene.add(make_node("one-slot").gpus(2, mib=A100).pod_slots(1))
    three = await scene.add(make_node("three-slots").gpus(2, mib=A100).pod_slots(3))
    await scene.submit(*(make_pod(f"p{i}").gpu_fraction("0.6") for i in range(2)))
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "a second card needs a slot more than there is")
    await scene.stay_pending()
    await scene.submit(make_pod("small").gpu_fraction("0.4"))
    await scene.run("small")
    assert (scene.cards(one), scene.cards(three)) == ([], [[A100 * 4 // 10, A100 * 6 // 10]])
    assert await scene.failed() == []
    assert scene.referee.violations() == []


async def test_the_last_cpu(scene: Scene) -> None:
    """There is a CPU for the pod or for its reservation, not for both; on an open card for the pod alone."""
    node = await scene.add(make_node("n").gpus(2, mib=A100).cpu("2"))
    first = make_pod("first").gpu_fraction("0.5").container(requests={"cpu": "901m"})
    await scene.submit(first)
    await scene.run("first")
    last = make_pod("last").gpu_fraction("0.6").container(requests={"cpu": "1"})
    await scene.submit(last)
    await scene.stay_pending("last")
    await scene.submit(make_pod("here").gpu_fraction("0.5").container(requests={"cpu": "1"}))
    await scene.run("here")
    assert scene.cards(node) == [[A100 // 2] * 2]
    assert await scene.failed() == []
    assert len(scene.opened) == 1


async def test_two_pods_of_two_cards_for_the_last_two(scene: Scene) -> None:
    """One of them gets both, and soon; neither holds one and waits for the other."""
    node = await scene.add(make_node("n").gpus(2, mib=A100))
    await scene.submit(*(make_pod(name).gpu_fraction("0.6").num_devices(2) for name in ("one", "two")))
    await scene.until(lambda: scene.has_pending(1), PATIENCE, "one must run")
    await scene.all_that_fits_runs()
    assert scene.cards(node) == [[A100 * 6 // 10]] * 2
    assert scene.referee.violations() == []


async def test_shares_and_whole_pods_for_the_last_card(scene: Scene) -> None:
    """Whoever comes first; the kubelet never sees both."""
    for number in range(4):
        await scene.add(make_node(f"n-{number}").gpus(1, mib=A100))
    pods = [make_pod(f"share-{i}").gpu_fraction("0.9") for i in range(4)]
    await scene.submit(*pods, *(make_pod(f"whole-{i}").gpus(1) for i in range(4)))
    await scene.all_that_fits_runs()
    assert len(await scene.pending()) == 4
    assert await scene.failed() == []
    assert scene.referee.violations() == []
