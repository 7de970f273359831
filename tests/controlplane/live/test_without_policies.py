"""All policies are away, and somebody has every right on pods and node records: the account stays right.

What was bound before is still held, whatever is written on it: by the referee, who goes by what containers were
started with. Only what the test itself has forged may be wrong.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import httpx
import pytest

from extender.core import names, notices
from extender.core.reservation import Template, reservation_pod
from tests.builders import make_node, make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.gpu_node import RESERVATIONS, GpuNode
from tests.controlplane.in_force import wait_until_in_force
from tests.controlplane.judge import Kind
from tests.controlplane.kubelets import Started, report
from tests.controlplane.policies import grant_everything_on_pods
from tests.controlplane.process import PATIENCE
from tests.controlplane.records import RECORDS
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served, Stage, inspected
from tests.controlplane.users import TENANT

Json = dict[str, Any]
CARD: Final = 8192
HELD: Final = 6000


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One of its own: where no binding names a ConfigMap any more, an API server never reads settings again."""
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="module", autouse=True)
def lawless(stage: Stage) -> None:
    """Nothing is in force but RBAC, and that lets the tenant do whatever the API has for pods and ConfigMaps."""
    for kind in ("validatingadmissionpolicybinding", "mutatingadmissionpolicybinding"):
        stage.plane.kubectl("delete", kind, "--all")
    grant_everything_on_pods(stage.plane, TENANT)
    wait_until_in_force(stage.plane)


@pytest.fixture
async def tenant(scene: Scene) -> AsyncIterator[Client]:
    async with Client(scene.stage.plane, TENANT) as client:
        yield client


@pytest.fixture
async def node(scene: Scene) -> GpuNode:
    """One card, of which ``victim`` holds HELD."""
    node = await scene.add(make_node("n").gpus(1, mib=CARD))
    await scene.submit(make_pod("victim").gpu_memory(HELD))
    await scene.run("victim")
    return node


def annotated(change: Mapping[str, str | None]) -> Json:
    return {"metadata": {"annotations": dict(change)}}


async def only_is_free(scene: Scene, mib: int) -> None:
    """Of the node's one card, no MiB more and no MiB less."""
    await scene.submit(make_pod("greedy").gpu_memory(mib + 1))
    await scene.stay_pending("greedy")
    await scene.submit(make_pod("modest").gpu_memory(mib))
    await scene.run("modest")
    await scene.stay_pending("greedy", seconds=1)


async def restart(extender: Served) -> None:
    """Another process, that has seen nothing of what was."""
    extender.process.kill()
    extender.process.start()
    extender.process.wait_until_ready()


async def counted(extender: Served, kind: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        text = (await client.get(f"{extender.url}/metrics")).text
    series = f'gpu_extender_ledger_differences_total{{kind="{kind}"}} '
    return sum(float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(series))


async def kinds(extender: Served) -> set[str]:
    return {found["kind"] for found in (await extender.get("/check"))["differences"]}


async def record_of(client: Client, node: GpuNode) -> Json:
    found = (await client.get(RECORDS))["items"]
    [config_map] = [record for record in found if (record.get("data") or {}).get("node") == node.name]
    return dict(config_map)


# --- forged annotations -------------------------------------------------------------------------------------


def placement_of(pod: Json, mib: int) -> dict[str, str]:
    """What the extender wrote on that pod, with another size."""
    given = pod["metadata"]["annotations"]
    kept = {key: given[key] for key in (names.SHARED_GPUS, names.VISIBLE_DEVICES, names.TRY)}
    return {**kept, names.MEMORY_MIB: str(mib)}


async def test_hami_3041_a_pod_that_brings_its_own_allocation_gets_what_it_asks_for(
    scene: Scene, node: GpuNode, tenant: Client
) -> None:
    """A tenant made a pod whose annotations said that it had been given a device. The Binding says what it gets."""
    forged = make_pod("forged").gpu_memory(1000).spec(schedulerName="gpu-scheduler")
    for key, value in placement_of(await scene.pod("victim"), 1).items():
        forged.annotation(key, value)
    scene.submitted["forged"] = (await tenant.create_pod(forged.build()))["metadata"]["uid"]
    await scene.run("forged")
    assert (await scene.pod("forged"))["metadata"]["annotations"][names.MEMORY_MIB] == "1000"
    await only_is_free(scene, CARD - HELD - 1000)
    assert scene.referee.violations() == []


async def test_hami_3041_a_pod_that_names_its_node_and_devices_is_counted(
    scene: Scene, node: GpuNode, extender: Served, tenant: Client
) -> None:
    """It runs past every scheduler, with a device in hand."""
    forged = make_pod("forged").spec(nodeName=node.name)
    for key, value in placement_of(await scene.pod("victim"), 1000).items():
        forged.annotation(key, value)
    scene.submitted["forged"] = (await tenant.create_pod(forged.build()))["metadata"]["uid"]
    await scene.run("forged")
    await only_is_free(scene, CARD - HELD - 1000)
    assert scene.referee.violations() == []
    assert await kinds(extender) >= {"record", "unasked"}


# --- open bind, and bound pods that are written to --------------------------------------------------------------


async def test_hami_3030_an_open_bind_ends_without_a_device_and_is_told(
    scene: Scene, node: GpuNode, extender: Served, tenant: Client
) -> None:
    before = await counted(extender, "bypassed")
    await scene.submit(make_pod("past").gpu_memory(1000).spec(nodeSelector=BY_THE_TEST))
    await tenant.bind(await scene.pod("past"), node.name)
    await scene.run("past")
    await scene.until(lambda: scene.was_told("past", notices.BYPASSED), PATIENCE, "its user is told")
    assert await counted(extender, "bypassed") == before + 1
    assert "bypassed" in await kinds(extender)
    [gpu] = (await inspected(extender, node.name))["sharedGpus"]
    assert [share["pod"] for share in gpu["shares"]] == ["victim"], "no share is counted for it"
    await only_is_free(scene, CARD - HELD)
    assert scene.cards(node) == [[CARD - HELD, HELD]], "and it has no device"
    assert scene.referee.violations([Kind.UNPLACED]) == []


async def test_an_open_bind_is_told_once_whoever_tells_it(scene: Scene, node: GpuNode, extender: Served) -> None:
    await scene.submit(make_pod("past").gpu_memory(1000).spec(nodeSelector=BY_THE_TEST))
    await scene.admin.bind(await scene.pod("past"), node.name)
    other = scene.stage.start_extender("second")
    await scene.until(lambda: scene.was_told("past", notices.BYPASSED), PATIENCE, "its user is told")
    await restart(extender)

    async def both_know() -> bool:
        return min(await counted(extender, "bypassed"), await counted(other, "bypassed")) >= 1

    await scene.until(both_know, PATIENCE, "every process counts what it sees")
    await scene.stay_pending(seconds=5)
    [event] = await scene.events("past", notices.BYPASSED)
    assert event["type"] == "Warning"
    assert "has no GPU" in event["message"]
    other.process.kill()


WRITTEN: Final[Mapping[str, Mapping[str, str | None]]] = {
    "shrunk": {names.MEMORY_MIB: "1"},
    "shrunk, bound by another try": {names.MEMORY_MIB: "1", names.TRY: "x"},
    "taken away": dict.fromkeys((names.SHARED_GPUS, names.VISIBLE_DEVICES, names.MEMORY_MIB, names.TRY)),
    "asks for less": {names.GPU_MEMORY: "1", names.MEMORY_MIB: "1"},
    "moved": {names.VISIBLE_DEVICES: "GPU-elsewhere"},
}


@pytest.mark.parametrize("written", list(WRITTEN))
async def test_hami_3030_nobody_frees_a_victims_memory(
    scene: Scene, node: GpuNode, extender: Served, tenant: Client, written: str
) -> None:
    """Whoever could write dropped a victim's share from the account, and its memory was given out again."""
    await tenant.patch(path_of(await scene.pod("victim")), annotated(WRITTEN[written]))
    await scene.submit(make_pod("early").gpu_memory(CARD - HELD + 1))
    await scene.stay_pending("early")
    await scene.until(lambda: scene.was_told("victim", notices.CHANGED), PATIENCE, "its user is told")
    assert "different" in await kinds(extender)
    await restart(extender)
    await scene.stay_pending("early")
    assert "record" in await kinds(extender)
    if written == "moved":
        # Nobody reserves the device that it names now: what it may use cannot be known, and nothing is given out.
        assert (await inspected(extender, node.name))["unusable"] == "ReservationLost"
    else:
        await only_is_free(scene, CARD - HELD)
    assert scene.referee.violations() == []


# --- the environment --------------------------------------------------------------------------------------------


async def test_kai_1671_who_takes_devices_through_the_environment_changes_nobodys_account(
    scene: Scene, node: GpuNode, extender: Served, tenant: Client
) -> None:
    """The pod sees every GPU, which no account can prevent; it is given what it asks for, and so is everybody else."""
    container = {"name": "main", "image": "x", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}
    ours = {"schedulerName": "gpu-scheduler", "containers": [container]}
    for taker in (make_pod("little").gpu_memory(1).spec(**ours), make_pod("nothing").spec(**ours)):
        pod = await tenant.create_pod(taker.build())
        scene.submitted[pod["metadata"]["name"]] = pod["metadata"]["uid"]
    await scene.run("little", "nothing")
    await only_is_free(scene, CARD - HELD - 1)
    assert scene.referee.violations(but_for={Kind.MISLED}) == []
    scene.referee.forgive()
    assert await kinds(extender) == set()


# --- node records and reservation pods ----------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["emptied", "shrunk", "grown", "deleted"])
async def test_a_node_record_that_is_written_to(
    scene: Scene, node: GpuNode, extender: Served, tenant: Client, written: str
) -> None:
    config_map = await record_of(tenant, node)
    record = json.loads(config_map["data"]["record"])
    [gpu] = record["gpus"].values()
    if written == "emptied":
        gpu["shares"] = {}
    elif written == "shrunk":
        [share] = gpu["shares"].values()
        share["mib"] = 1
    else:
        gpu["mib"] = 10 * CARD
    path = f"{RECORDS}/{config_map['metadata']['name']}"
    if written == "deleted":
        await tenant.delete(path)
    else:
        await tenant.patch(path, {"data": {"record": json.dumps(record)}})
    await scene.submit(make_pod("early").gpu_memory(CARD - HELD + 1))
    await scene.stay_pending("early")
    if written == "grown":
        assert await kinds(extender) >= {"unreadable"}
    else:
        assert written == "deleted" or "record" in await kinds(extender)
        await only_is_free(scene, CARD - HELD)
    assert scene.referee.violations() == []


async def test_a_report_that_grows(scene: Scene, node: GpuNode, extender: Served, tenant: Client) -> None:
    [reservation] = await scene.reservations()
    await tenant.patch(path_of(reservation), annotated({names.DEVICE_MEMORY_MIB: str(10 * CARD)}))
    await scene.submit(make_pod("early").gpu_memory(CARD - HELD + 1))
    await scene.stay_pending("early")
    assert "unreadable" in await kinds(extender)
    await restart(extender)
    await scene.stay_pending("early")
    assert "unreadable" in await kinds(extender)
    await tenant.patch(path_of(reservation), annotated({names.DEVICE_MEMORY_MIB: str(CARD)}))
    await only_is_free(scene, CARD - HELD)
    assert scene.referee.violations() == []


@pytest.mark.parametrize("asks", [True, False], ids=["with a device of its own", "without a device"])
async def test_a_strangers_reservation_pod(scene: Scene, extender: Served, tenant: Client, asks: bool) -> None:
    """It claims the victim's card, ten times as large; with a device, it takes the node's other card off the market."""
    node = await scene.add(make_node("n").gpus(2, mib=CARD))
    await scene.submit(make_pod("victim").gpu_memory(HELD))
    await scene.run("victim")
    [device] = (await scene.pod("victim"))["metadata"]["annotations"][names.VISIBLE_DEVICES].split(",")

    async def agent(started: Started) -> None:
        if started.pod["metadata"]["name"] != "share-0":
            await report(started)

    scene.referee.agent = agent
    stranger = reservation_pod("share-0", node.name, names.GPU_RESOURCE, Template("nobody", "x"))
    claim = {names.DEVICE: device, names.DEVICE_MEMORY_MIB: str(10 * CARD), names.BOOT_ID: node.boot_id}
    stranger["metadata"]["annotations"] = claim
    stranger["spec"]["nodeName"] = node.name
    if not asks:
        del stranger["spec"]["containers"][0]["resources"]
    await tenant.post(f"/api/v1/namespaces/{RESERVATIONS}/pods", stranger)
    await scene.submit(make_pod("large").gpu_memory(CARD + 1), make_pod("first").gpu_memory(CARD))
    if asks:
        await scene.stay_pending("large", "first")
        assert "device-twice" in await kinds(extender)
    else:
        await scene.run("first")
        await scene.stay_pending("large")
        assert "forged" in await kinds(extender)
    await scene.submit(make_pod("modest").gpu_memory(CARD - HELD))
    await scene.run("modest")
    assert scene.referee.violations() == []
