"""The product is taken away with the commands of docs/operations.md, as they stand there."""

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from extender.core import names, reservation
from tests.builders import make_node, make_pod
from tests.controlplane.process import PATIENCE, wait_for
from tests.controlplane.scene import Scene
from tests.controlplane.stage import Stage
from tests.controlplane.users import TENANT
from tests.manifests import BASE
from tests.test_docs import ROOT, code

COMMANDS, REMEDY = code("docs/operations.md", "## Uninstall")
#: What makes and ends pods of Deployments, and what empties namespaces.
CONTROLLERS: Final = (
    "deployment-controller",
    "replicaset-controller",
    "namespace-controller",
    "garbage-collector-controller",
)
#: What the manifests have outside the two namespaces, and these.
KINDS: Final = (
    "namespaces,priorityclasses,clusterroles,clusterrolebindings,rolebindings,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings,mutatingadmissionpolicies,mutatingadmissionpolicybindings"
)

pytestmark = pytest.mark.timeout(400)  # a control plane with controllers, extender and scheduler, for each test


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Two share pods and one with a whole GPU run; the shares' GPUs stay open for ``idle-timeout``, as installed."""
    monkeypatch.chdir(ROOT)
    with Stage() as stage:
        stage.plane.start_controllers(*CONTROLLERS)
        stage.plane.grant(TENANT, "cluster-admin")  # an administrator like any other, who is not in system:masters
        await asyncio.to_thread(wait_for, lambda: len(of_the_deployment(stage)) == 2, PATIENCE, lambda: "no replicas")
        stage.start_scheduler(stage.start_extender())
        async with Scene(stage) as scene:
            await scene.add(make_node("n").gpus(3, mib=80_000))
            await scene.submit(
                *(make_pod(f"share-{i}").gpu_fraction("0.7") for i in range(2)), make_pod("whole").gpus(1)
            )
            await scene.run("share-0", "share-1", "whole")
            yield scene


def of_the_deployment(stage: Stage) -> list[str]:
    return stage.plane.kubectl("get", "pods", "-n", "gpu-extender", "-o", "name").split()


async def kubectl(scene: Scene, command: str) -> str:
    """A line of the page, by the administrator; the referee's kubelets go on meanwhile.

    Raises AssertionError where kubectl fails, as when it has waited for longer than the page lets it.
    """
    program, *arguments = shlex.split(command, comments=True)
    assert program == "kubectl"
    return await asyncio.to_thread(scene.stage.plane.kubectl, *arguments, user=TENANT)


def processes(scene: Scene, namespace: str) -> set[str]:
    """Names of the pods there whose processes run on a node."""
    return {Path(name).name for name in scene.referee.running() if name.startswith(f"{namespace}/")}


async def left_behind(scene: Scene) -> list[str]:
    """Whatever the cluster has of ours."""
    get = f"kubectl get {KINDS} -A -l app.kubernetes.io/part-of=gpu-extender -o name"
    return (await kubectl(scene, get)).split()


async def test_the_commands_of_the_page_leave_nothing_behind_and_end_no_pod_of_a_user(scene: Scene) -> None:
    stop, stopped, shares, release, remove = COMMANDS
    assert len(await left_behind(scene)) > 10
    await kubectl(scene, stop)
    await kubectl(scene, stopped)
    assert of_the_deployment(scene.stage) == []
    scene.stage.stop()  # the processes of these pods
    assert (await kubectl(scene, shares)).split() == ["default/share-0", "default/share-1"]
    await scene.submit(make_pod("late").gpu_fraction("0.5"))
    await scene.delete("share-0", "share-1")
    assert await kubectl(scene, shares) == ""
    assert len(processes(scene, names.RESERVATION_NAMESPACE)) == 2
    await kubectl(scene, release)
    assert processes(scene, names.RESERVATION_NAMESPACE) == set()
    await kubectl(scene, remove)
    assert await left_behind(scene) == []
    assert processes(scene, "default") == {"whole"}
    assert await scene.lost() == []
    assert scene.referee.violations() == []


async def test_in_another_order_gpus_stay_held_under_shares_until_their_pods_are_deleted(scene: Scene) -> None:
    await kubectl(scene, f"{COMMANDS[-1]} --wait=false")
    scene.stage.stop()  # the Deployment is gone
    held = processes(scene, names.RESERVATION_NAMESPACE)

    async def all_are_asked_to_end() -> bool:
        found = [pod["metadata"] for pod in await scene.reservations()]
        return all(pod.get("deletionGracePeriodSeconds") == reservation.GRACE_SECONDS for pod in found)

    await scene.until(all_are_asked_to_end, PATIENCE, "the namespace controller leaves them alone")
    assert len(held) == 2
    await asyncio.sleep(3)  # longer than the extender's own deletions take
    assert processes(scene, names.RESERVATION_NAMESPACE) == held
    assert processes(scene, "default") == {"share-0", "share-1", "whole"}
    with pytest.raises(AssertionError, match="being terminated"):
        await kubectl(scene, f"kubectl apply -k {BASE} --dry-run=server")
    await scene.delete("share-0", "share-1")
    (remedy,) = REMEDY
    await kubectl(scene, remedy)

    async def nothing_is_left() -> bool:
        return await left_behind(scene) == []

    await scene.until(nothing_is_left, PATIENCE, "the namespaces do not end")
    assert processes(scene, names.RESERVATION_NAMESPACE) == set()
    assert await scene.lost() == []
    assert scene.referee.violations() == []
