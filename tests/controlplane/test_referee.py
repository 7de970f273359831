"""The referee in a real API: it plays kubelets as kubelets are, and a forgery in the API does not escape it."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.client import Answer, Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.gpu_node import MEMORY_MIB, RESERVATIONS, VISIBLE_DEVICES
from tests.controlplane.judge import Kind
from tests.controlplane.kubelets import silence
from tests.controlplane.process import PATIENCE
from tests.controlplane.referee import Referee

Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def scheduler(plane: ControlPlane) -> Iterator[None]:
    plane.kubectl("create", "namespace", RESERVATIONS)
    process = plane.start_scheduler({"podMaxBackoffSeconds": 1})
    yield
    process.stop()


@pytest.fixture
async def referee(admin: Client) -> AsyncIterator[Referee]:
    async with Referee(admin, seed=3) as referee:
        yield referee
        for pod in (await admin.get("/api/v1/pods"))["items"]:
            await gone(admin, pod, {"gracePeriodSeconds": 0})
        for node in list(referee.nodes):
            await referee.remove_node(node)


@pytest.fixture
async def node(referee: Referee) -> str:
    name = f"node-{uuid4().hex[:6]}"
    await referee.add_node(make_node(name).cpu(4).gpus(2, mib=1000).build())
    return name


async def gone(client: Client, pod: Json, options: Json) -> None:
    """Delete it; somebody else may have been first."""
    with suppress(Answer):
        await client.delete(path_of(pod), options)


async def reserve(client: Client, referee: Referee, name: str = "share-1") -> tuple[Json, str]:
    """A reservation pod that runs, and its device."""
    pod = make_pod(name, RESERVATIONS).gpus(1).spec(terminationGracePeriodSeconds=604800).build()
    created = await client.create_pod(pod)
    await referee.wait_running({f"{RESERVATIONS}/{name}"}, 10)
    return created, referee.running()[f"{RESERVATIONS}/{name}"].devices[0].uuid


async def place(client: Client, node: str, name: str, device: str, mib: int, *, grace: int = 30) -> Json:
    """A share pod, bound as an extender would, or a forger."""
    spec = {"schedulerName": "nobody", "terminationGracePeriodSeconds": grace}
    pod = await client.create_pod(make_pod(name).gpu_memory(mib).spec(**spec).build())
    await client.bind(pod, node, {VISIBLE_DEVICES: device, MEMORY_MIB: str(mib)})
    return pod


async def read(client: Client, pod: Json) -> Json:
    return await client.get(path_of(pod))


async def eventually(condition: Any, seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return found


async def status_with(client: Client, pod: Json, phase: str) -> Json:
    async def reached() -> Json | None:
        status: Json = (await read(client, pod))["status"]
        return status if status["phase"] == phase else None

    return dict(await eventually(reached))


async def test_pods_run_with_devices_of_their_own(referee: Referee, admin: Client, node: str) -> None:
    pods = [await admin.create_pod(make_pod(f"whole-{number}").gpus(1).build()) for number in range(2)]
    await referee.wait_running({"default/whole-0", "default/whole-1"}, PATIENCE)
    status = await status_with(admin, pods[0], "Running")
    assert status["podIP"]
    assert status["containerStatuses"][0]["state"]["running"]
    given = {device.uuid for each in referee.running().values() for device in each.devices}
    assert given == set(referee.nodes[node].devices)
    assert referee.violations() == []


async def test_an_agent_reports_device_memory_and_boot(referee: Referee, admin: Client, node: str) -> None:
    pod, device = await reserve(admin, referee)

    async def reported() -> Json:
        return dict((await read(admin, pod))["metadata"].get("annotations") or {})

    assert await eventually(reported) == {
        "gpu-extender.io/device": device,
        "gpu-extender.io/device-memory-mib": "1000",
        "gpu-extender.io/boot-id": referee.nodes[node].boot_id,
    }


async def test_an_agent_may_be_silent(referee: Referee, admin: Client, node: str) -> None:
    referee.agent = silence
    pod, _ = await reserve(admin, referee)
    await status_with(admin, pod, "Running")
    assert "annotations" not in (await read(admin, pod))["metadata"]


async def test_a_forged_oversubscription_is_found(referee: Referee, admin: Client, node: str) -> None:
    _, device = await reserve(admin, referee)
    await place(admin, node, "honest", device, 600)
    await referee.wait_running({"default/honest"}, PATIENCE)
    assert referee.violations() == []
    forged = await place(admin, node, "forged", device, 401)
    await referee.wait_running({"default/forged"}, PATIENCE)
    assert [violation.kind for violation in referee.violations()] == [Kind.OVERSUBSCRIBED]
    await gone(admin, forged, {})
    await referee.until(lambda: "default/forged" not in referee.running(), PATIENCE)
    assert referee.violations_now() == []
    assert len(referee.violations()) == 1, "what was seen stays seen"


async def test_a_forged_device_is_found(referee: Referee, admin: Client, node: str) -> None:
    await place(admin, node, "forged", "GPU-nowhere", 1)
    await referee.wait_running({"default/forged"}, PATIENCE)
    assert [violation.kind for violation in referee.violations()] == [Kind.UNKNOWN_DEVICE]


async def test_a_share_below_a_whole_gpu_pod_is_found(referee: Referee, admin: Client, node: str) -> None:
    await admin.create_pod(make_pod("whole").gpus(1).build())
    await referee.wait_running({"default/whole"}, PATIENCE)
    await place(admin, node, "forged", referee.running()["default/whole"].devices[0].uuid, 1)
    await referee.wait_running({"default/forged"}, PATIENCE)
    assert {violation.kind for violation in referee.violations()} == {Kind.GIVEN_AWAY, Kind.UNHELD}


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (make_pod("late").gpus(3), "UnexpectedAdmissionError"),
        (make_pod("late").container(requests={"cpu": "5"}), "OutOfcpu"),
    ],
)
async def test_a_kubelet_rejects_for_ever(referee: Referee, admin: Client, node: str, pod: Any, reason: str) -> None:
    created = await admin.create_pod(pod.spec(nodeName=node).build())
    assert (await status_with(admin, created, "Failed"))["reason"] == reason
    assert referee.running() == {}


async def test_a_deletion_lasts_as_long_as_its_process(referee: Referee, admin: Client, node: str) -> None:
    pod, _ = await reserve(admin, referee)
    await gone(admin, pod, {})
    await asyncio.sleep(0.5)
    assert (await read(admin, pod))["metadata"]["deletionGracePeriodSeconds"] == 604800
    asked = time.monotonic()
    await gone(admin, pod, {"gracePeriodSeconds": 1})
    await referee.until(lambda: not referee.running(), PATIENCE)
    assert time.monotonic() - asked > 0.9


async def test_a_force_deleted_process_runs_on_for_its_grace(referee: Referee, admin: Client, node: str) -> None:
    referee.lingering = 60
    _, device = await reserve(admin, referee)
    await place(admin, node, "stubborn", device, 600, grace=2)
    await referee.wait_running({"default/stubborn"}, PATIENCE)
    await referee.force_delete("default/stubborn")
    await place(admin, node, "next", device, 600)
    await referee.wait_running({"default/next"}, PATIENCE)
    assert [violation.kind for violation in referee.violations()] == [Kind.OVERSUBSCRIBED]
    await referee.until(lambda: "default/stubborn" not in referee.running(), PATIENCE)
    assert referee.violations_now() == []


async def test_a_reboot_fails_reservations_and_restarts_shares(referee: Referee, admin: Client, node: str) -> None:
    reservation, device = await reserve(admin, referee)
    share = await place(admin, node, "share", device, 5)
    await referee.wait_running({"default/share"}, PATIENCE)
    before = (await admin.get(f"/api/v1/nodes/{node}"))["status"]["nodeInfo"]["bootID"]
    await referee.reboot(node)
    assert (await status_with(admin, reservation, "Failed"))["reason"] == "UnexpectedAdmissionError"
    assert (await status_with(admin, share, "Running"))["containerStatuses"][0]["restartCount"] == 1
    assert (await admin.get(f"/api/v1/nodes/{node}"))["status"]["nodeInfo"]["bootID"] != before
    assert [violation.kind for violation in referee.violations_now()] == [Kind.UNHELD]
    assert referee.violations(but_for=[Kind.UNHELD]) == []
    await admin.create_pod(make_pod("whole").gpus(2).build())
    await referee.wait_running({"default/whole"}, PATIENCE)
    assert referee.violations(but_for=[Kind.UNHELD])[0].kind == Kind.GIVEN_AWAY


async def test_after_a_reimage_a_share_cannot_start(referee: Referee, admin: Client, node: str) -> None:
    _, device = await reserve(admin, referee)
    share = await place(admin, node, "share", device, 5)
    await referee.wait_running({"default/share"}, PATIENCE)
    await referee.reimage(node)
    status = (await read(admin, share))["status"]
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerError"
    assert referee.violations_now() == []


async def test_a_failed_device_is_off_the_market(referee: Referee, admin: Client, node: str) -> None:
    failed, well = referee.nodes[node].devices
    await referee.fail_device(node, failed)
    assert (await admin.get(f"/api/v1/nodes/{node}"))["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    await admin.create_pod(make_pod("both").gpus(2).build())
    assert (await reserve(admin, referee))[1] == well
    await referee.fail_device(node, failed, healthy=True)
    assert "default/both" not in referee.running()


async def test_a_node_comes_back_with_another_uid(referee: Referee, admin: Client, node: str) -> None:
    _, device = await reserve(admin, referee)
    before = await admin.get(f"/api/v1/nodes/{node}")
    await referee.recreate_node(node)
    after = await admin.get(f"/api/v1/nodes/{node}")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["nodeInfo"] == before["status"]["nodeInfo"]
    assert referee.running()[f"{RESERVATIONS}/share-1"].devices[0].uuid == device


async def test_processes_end_by_themselves(referee: Referee, admin: Client, node: str) -> None:
    pod = await admin.create_pod(make_pod("job").gpus(2).build())
    await referee.wait_running({"default/job"}, PATIENCE)
    await referee.complete("default/job")
    assert (await read(admin, pod))["status"]["phase"] == "Succeeded"
    await reserve(admin, referee)


async def test_it_goes_on_where_the_api_server_was_away(
    referee: Referee, admin: Client, node: str, plane: ControlPlane
) -> None:
    await reserve(admin, referee)
    await place(admin, node, "missed", next(iter(referee.nodes[node].devices)), 1)
    await referee.wait_running({"default/missed"}, PATIENCE)
    await asyncio.to_thread(plane.apiserver.kill)
    await asyncio.to_thread(plane.apiserver.restart)
    async with Client(plane) as fresh:
        late = await fresh.create_pod(make_pod("late").gpus(1).build())
        await referee.wait_running({"default/late"}, PATIENCE)
        await status_with(fresh, late, "Running")


async def test_a_status_that_the_api_refuses_is_not_swallowed(admin: Client, plane: ControlPlane) -> None:
    async def run() -> None:
        async with Referee(admin) as referee:
            name = f"node-{uuid4().hex[:6]}"
            await referee.add_node(make_node(name).gpus(1).build())
            pod = await admin.create_pod(make_pod("broken").spec(schedulerName="nobody").build())
            await admin.bind(pod, name, {"a/b/c": "no key of an annotation"})
            await referee.wait_running({"default/broken"}, PATIENCE)
            await asyncio.sleep(0.5)

    with pytest.raises(Answer, match="a/b/c"):
        await run()
