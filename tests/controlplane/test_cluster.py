"""The control plane of the tests is a real one, and can be broken at will."""

import time
from types import SimpleNamespace

import aiohttp
import pytest

from tests.builders import make_node, make_pod
from tests.conftest import pytest_collection_finish
from tests.controlplane import build
from tests.controlplane.build import KUBERNETES
from tests.controlplane.client import Answer, Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import PATIENCE, answers_ok, wait_for
from tests.controlplane.users import EXTENDER, TENANT


@pytest.mark.parametrize(("items", "built"), [(["a test"], 1), ([], 0)])
def test_it_is_built_before_the_first_test(
    items: list[str], built: int, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[str] = []
    monkeypatch.setattr(build, "controlplane_binary", lambda: builds.append("built"))
    pytest_collection_finish(SimpleNamespace(items=items, config=pytestconfig))  # type: ignore[arg-type]
    assert len(builds) == built


async def test_it_is_the_pinned_version(plane: ControlPlane, admin: Client) -> None:
    assert (await admin.get("/version"))["gitVersion"] == KUBERNETES


async def test_a_user_has_the_rights_that_rbac_gives(plane: ControlPlane) -> None:
    async with Client(plane, EXTENDER) as extender:
        with pytest.raises(Answer, match=r"system:serviceaccount:gpu-extender:gpu-extender.*cannot list") as refused:
            await extender.get("/api/v1/pods")
        assert refused.value.status == 403
        plane.grant(EXTENDER, "system:kube-scheduler")
        assert (await extender.get("/api/v1/pods"))["items"] == []


async def test_a_scheduler_places_pods_and_a_second_one_too(plane: ControlPlane, admin: Client) -> None:
    await admin.create_node(make_node("scheduled").gpus(2).build())
    first = plane.start_scheduler({})
    second = plane.start_scheduler({"profiles": [{"schedulerName": "other"}]}, "second-scheduler")
    for name in ("default-scheduler", "other"):
        await admin.create_pod(make_pod(name).gpus(1).spec(schedulerName=name).build())
        wait_for(lambda name=name: node_of(plane, name) == "scheduled", PATIENCE, lambda: "the pod is not bound")  # type: ignore[misc]
    first.stop()
    second.stop()


def node_of(plane: ControlPlane, pod: str) -> str:
    return plane.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")


def test_controllers_give_edit_its_rights(plane: ControlPlane) -> None:
    controllers = plane.start_controllers("clusterrole-aggregation-controller")
    plane.grant(TENANT, "edit")
    question = ("auth", "can-i", "create", "pods")
    wait_for(lambda: "yes" in plane.kubectl(*question, user=TENANT, check=False), PATIENCE, lambda: "edit is empty")
    controllers.stop()


async def test_a_paused_api_server_answers_again(plane: ControlPlane, admin: Client) -> None:
    plane.apiserver.pause()
    async with Client(plane, seconds=0.5) as hasty:
        with pytest.raises(TimeoutError):
            await hasty.get("/api/v1/nodes")
    plane.apiserver.resume()
    await admin.get("/api/v1/nodes")


async def test_what_was_stored_survives_kill_9_of_etcd_and_api_server(plane: ControlPlane, admin: Client) -> None:
    kept = await admin.create_node(make_node("kept").build())
    for process in (plane.etcd, plane.apiserver):
        process.kill()
        assert not process.is_running()
        assert not answers_ok(process.health)
        process.start()
        process.wait_until_ready()
    async with Client(plane) as fresh:
        assert (await fresh.get("/api/v1/nodes/kept"))["metadata"]["uid"] == kept["metadata"]["uid"]


def test_nothing_is_left_behind() -> None:
    with ControlPlane() as plane:
        plane.start_scheduler({})
        plane.etcd.pause()
    assert not plane.folder.exists()
    assert not any(process.is_running() for process in plane.processes)
    assert not any(answers_ok(process.health) for process in plane.processes)


def test_a_server_ends_with_the_process_that_started_it() -> None:
    plane = ControlPlane()
    plane.etcd.start()
    plane.etcd.wait_until_ready()
    pipe = plane.etcd._running
    assert pipe is not None
    assert pipe.stdin is not None
    pipe.stdin.close()
    assert pipe.wait(10) == 1
    plane.close()


def test_a_component_that_cannot_start_shows_its_log(plane: ControlPlane) -> None:
    with pytest.raises(AssertionError, match=r"kube-scheduler-broken has ended(.|\n)*unknown field"):
        plane.start_scheduler({"nonsense": True}, "kube-scheduler-broken")


def test_kubectl_says_what_went_wrong(plane: ControlPlane) -> None:
    with pytest.raises(AssertionError, match=r"kubectl get pod absent: .*NotFound"):
        plane.kubectl("get", "pod", "absent")


async def test_start_takes_seconds() -> None:
    started = time.monotonic()
    with ControlPlane() as plane:
        assert time.monotonic() - started < 30
        async with Client(plane) as client:
            assert (await client.get("/api/v1/nodes"))["items"] == []
    with pytest.raises(aiohttp.ClientError):
        async with Client(plane) as client:
            await client.get("/api/v1/nodes")
