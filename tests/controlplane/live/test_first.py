"""The product on a real control plane: pods come in over kubectl's door and run on the devices that they were given."""

from extender.core import notices
from tests.builders import make_node, make_pod
from tests.controlplane.process import PATIENCE
from tests.controlplane.scene import Scene


async def test_shares_and_whole_gpus_fill_two_nodes(scene: Scene) -> None:
    """12 half GPUs and a pod of two whole ones need exactly the eight GPUs there are."""
    for name in ("n-0", "n-1"):
        await scene.add(make_node(name).cpu(64).gpus(4, mib=80_000))
    await scene.submit(*(make_pod(f"half-{number}").gpu_fraction("0.5") for number in range(12)))
    await scene.submit(make_pod("whole").gpus(2))
    await scene.run("whole", *(f"half-{number}" for number in range(12)))
    await scene.until(lambda: scene.was_told("half-0", notices.PLACED), PATIENCE, "its user cannot see what it got")
    assert "got 40000 MiB of GPU memory of GPU-" in (await scene.events("half-0", notices.PLACED))[0]["message"]
    assert scene.referee.violations() == []
