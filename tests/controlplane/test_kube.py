"""KubeCluster against the real API server: what it answers, and which of our errors that becomes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.aio.config import incluster_config

from extender.cluster import Collection, KubeCluster, Page, WatchEvent
from extender.core import names
from extender.core.errors import Conflict, Gone, InputError, NotFound, Refused, Unavailable
from extender.kube import Limits
from tests.builders import make_node, make_pod
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.users import TENANT

Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def reservations(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", names.RESERVATION_NAMESPACE)


@pytest.fixture
async def cluster(plane: ControlPlane) -> AsyncIterator[KubeCluster]:
    cluster = await KubeCluster.connect(plane.kubeconfig())
    yield cluster
    await cluster.close()


def binding(pod: Json, node: str = "any", **metadata: Any) -> Json:
    own = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {**own, **metadata}, "target": target}


def pod_named(name: str) -> Json:
    pod = make_pod(name).build()
    return {**pod, "metadata": {"name": name, "namespace": "default"}, "status": {}}


async def test_a_binding_sets_node_and_annotations_at_once(cluster: KubeCluster) -> None:
    pod = await cluster.create_pod(pod_named("bound"))
    version = pod["metadata"]["resourceVersion"]
    await cluster.bind_pod(binding(pod, resourceVersion=version, annotations={names.TRY: "a-1"}))
    bound = await cluster.get_pod("default", "bound")
    assert bound["spec"]["nodeName"] == "any"
    assert bound["metadata"]["annotations"][names.TRY] == "a-1"


async def test_a_second_binding_is_a_conflict(cluster: KubeCluster) -> None:
    pod = await cluster.create_pod(pod_named("twice"))
    await cluster.bind_pod(binding(pod))
    with pytest.raises(Conflict, match="already assigned to node"):
        await cluster.bind_pod(binding(pod, node="other"))


async def test_a_fence_kills_every_binding_sent_before(cluster: KubeCluster) -> None:
    pod = await cluster.create_pod(pod_named("fenced"))
    version = pod["metadata"]["resourceVersion"]
    fence = {"metadata": {"uid": pod["metadata"]["uid"], "annotations": {names.FENCE: "1"}}}
    fenced = await cluster.patch_pod("default", "fenced", fence)
    assert fenced["metadata"]["resourceVersion"] != version
    with pytest.raises(Conflict):
        await cluster.bind_pod(binding(pod, resourceVersion=version))


async def test_a_patch_of_another_pod_of_that_name_is_refused(cluster: KubeCluster) -> None:
    await cluster.create_pod(pod_named("renewed"))
    with pytest.raises((Refused, Conflict)):
        await cluster.patch_pod("default", "renewed", {"metadata": {"uid": "another"}})


async def test_a_delete_names_the_very_pod_and_its_grace(cluster: KubeCluster) -> None:
    pod = await cluster.create_pod(pod_named("deleted"))
    with pytest.raises(Conflict):
        await cluster.delete_pod("default", "deleted", "another-uid")
    await cluster.bind_pod(binding(pod))
    await cluster.delete_pod("default", "deleted", pod["metadata"]["uid"], 7)
    assert (await cluster.get_pod("default", "deleted"))["metadata"]["deletionGracePeriodSeconds"] == 7
    with pytest.raises(Conflict):
        await cluster.bind_pod(binding(pod))
    await cluster.delete_pod("default", "deleted", pod["metadata"]["uid"], 0)
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "deleted")


async def test_a_delete_at_a_version_that_has_passed_is_refused(cluster: KubeCluster) -> None:
    """A reservation pod that reports at the last moment is not deleted for not having reported."""
    pod = await cluster.create_pod(pod_named("versioned"))
    uid, version = pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]
    reported = await cluster.patch_pod("default", "versioned", {"metadata": {"annotations": {names.DEVICE: "GPU-1"}}})
    with pytest.raises(Conflict):
        await cluster.delete_pod("default", "versioned", uid, 2, version)
    await cluster.delete_pod("default", "versioned", uid, 2, reported["metadata"]["resourceVersion"])
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "versioned")


async def test_the_pods_of_a_node_and_of_none(cluster: KubeCluster) -> None:
    bound, waiting = [await cluster.create_pod(pod_named(f"listed-{name}")) for name in ("bound", "waiting")]
    await cluster.bind_pod(binding(bound))
    node = (await cluster.get_pod("default", "listed-bound"))["spec"]["nodeName"]
    for where, here, elsewhere in ((node, bound, waiting), ("", waiting, bound)):
        uids = {pod["metadata"]["uid"] for pod in await cluster.list_pods(where)}
        assert here["metadata"]["uid"] in uids
        assert elsewhere["metadata"]["uid"] not in uids


async def test_what_is_missing_taken_or_senseless(cluster: KubeCluster) -> None:
    await cluster.create_pod(pod_named("taken"))
    with pytest.raises(Conflict, match="already exists"):
        await cluster.create_pod(pod_named("taken"))
    with pytest.raises(NotFound, match='pods "absent" not found'):
        await cluster.delete_pod("default", "absent", "uid")
    with pytest.raises(NotFound):
        await cluster.bind_pod(binding({"metadata": {"name": "absent", "namespace": "default", "uid": "u"}}))
    with pytest.raises(Refused, match="Invalid value"):
        await cluster.create_pod({**pod_named("Capitals"), "spec": {"containers": []}})
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "../../nodes")


async def test_rights_that_are_missing_are_refusals(plane: ControlPlane) -> None:
    tenant = await KubeCluster.connect(plane.kubeconfig(TENANT))
    with pytest.raises(Refused, match=r"403.*forbidden"):
        await tenant.get_pod("default", "any")
    with pytest.raises(Refused, match=r"403.*forbidden"):
        await anext(tenant.watch(Collection.PODS, "1"))
    await tenant.close()


async def test_a_field_that_no_client_knows_yet_is_kept(cluster: KubeCluster, admin: Client) -> None:
    await admin.create_node(make_node("patched").build())
    patched = await cluster.patch_node("patched", {"metadata": {"annotations": {"a": "b"}}})
    assert (await admin.get("/api/v1/nodes/patched"))["metadata"] == patched["metadata"]
    with pytest.raises(Refused, match="immutable"):
        await cluster.patch_node("patched", {"metadata": {"uid": "another", "annotations": {"a": "c"}}})
    # The client's models would raise here; the API server only warns.
    unknown = await cluster.create_pod({**pod_named("unknown"), "comingInVersion99": True})
    assert unknown["metadata"]["uid"]


@pytest.mark.parametrize("kind", ["config_map", "lease"])
async def test_put_is_a_compare_and_swap(cluster: KubeCluster, kind: str) -> None:
    api = "v1" if kind == "config_map" else "coordination.k8s.io/v1"
    body: Json = {"apiVersion": api, "kind": "ConfigMap" if kind == "config_map" else "Lease"}
    body |= {"metadata": {"name": "swapped", "namespace": names.RESERVATION_NAMESPACE}}
    get: Callable[[str, str], Awaitable[Json]] = getattr(cluster, f"get_{kind}")
    create: Callable[[Json], Awaitable[Json]] = getattr(cluster, f"create_{kind}")
    put: Callable[[Json], Awaitable[Json]] = getattr(cluster, f"put_{kind}")
    with pytest.raises(NotFound):
        await get(names.RESERVATION_NAMESPACE, "swapped")
    first = await create(body)
    with pytest.raises(Conflict):
        await create(body)
    second = await put({**first, "metadata": {**first["metadata"], "labels": {"turn": "2"}}})
    with pytest.raises(Conflict):
        await put({**first, "metadata": {**first["metadata"], "labels": {"turn": "3"}}})
    assert await get(names.RESERVATION_NAMESPACE, "swapped") == second


async def test_an_event_is_stored(cluster: KubeCluster, plane: ControlPlane) -> None:
    about = {"kind": "Pod", "namespace": "default", "name": "somebody", "apiVersion": "v1"}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-", "namespace": "default"}}
    await cluster.create_event({**event, "involvedObject": about, "reason": "Tried", "message": "m", "type": "Normal"})
    assert "Tried" in plane.kubectl("events", "--for", "pod/somebody")


async def test_a_list_comes_in_pages_of_one_version(cluster: KubeCluster, admin: Client) -> None:
    for number in range(7):
        await cluster.create_pod(pod_named(f"listed-{number}"))
    pages: list[Page] = []
    async for page in cluster.list_all(Collection.PODS, page_size=3):
        pages.append(page)
        await admin.create_pod(make_pod(f"late-{len(pages)}").build())  # in no page: the list is one moment's
    found = [pod["metadata"]["name"] for page in pages for pod in page.items]
    assert len(found) == len(set(found))
    assert {f"listed-{number}" for number in range(7)} <= set(found)
    assert not [name for name in found if name.startswith("late-")]
    assert len({page.resource_version for page in pages}) == 1
    assert all(len(page.items) == 3 for page in pages[:-1])


async def test_an_empty_list_is_a_page_too(cluster: KubeCluster) -> None:
    for collection in (Collection.RESOURCE_SLICES, Collection.RESOURCE_CLAIMS):
        pages = [page async for page in cluster.list_all(collection)]
        assert [page.items for page in pages] == [[]]
        assert pages[0].resource_version.isdigit()


async def test_a_list_of_what_the_api_does_not_have_is_not_found(cluster: KubeCluster) -> None:
    with pytest.raises(NotFound):
        await anext(cluster.list_all("/apis/resource.k8s.io/v99/resourceslices"))  # type: ignore[arg-type]


async def test_a_watch_goes_on_where_the_list_ended(cluster: KubeCluster) -> None:
    version = [page async for page in cluster.list_all(Collection.PODS)][-1].resource_version
    created = await cluster.create_pod(pod_named("watched"))
    await cluster.bind_pod(binding(created))
    await cluster.delete_pod("default", "watched", created["metadata"]["uid"], 0)
    seen: list[WatchEvent] = []
    async with asyncio.timeout(10):
        async for event in cluster.watch(Collection.PODS, version):
            seen.append(event)
            if event.type == "DELETED":
                break
    assert [event.type for event in seen[:2]] == ["ADDED", "MODIFIED"]
    assert [event.object["spec"].get("nodeName") for event in seen[:2]] == [None, "any"]
    assert len({event.resource_version for event in seen}) == len(seen)


async def test_a_watch_from_a_version_that_is_forgotten_is_gone(plane: ControlPlane) -> None:
    plane.apiserver.restart()  # its memory of changes begins anew
    cluster = await KubeCluster.connect(plane.kubeconfig())
    with pytest.raises(Gone):
        async for _ in cluster.watch(Collection.NODES, "1"):
            pass
    await cluster.close()


async def test_a_silent_watch_and_a_paused_server_are_unavailable(plane: ControlPlane) -> None:
    hasty = await KubeCluster.connect(plane.kubeconfig(), Limits(request=0.5, silence=0.5))
    with pytest.raises(Unavailable, match="broke off a watch"):
        async for _ in hasty.watch(Collection.CONFIG_MAPS, "0"):
            pass
    plane.apiserver.pause()
    try:
        with pytest.raises(Unavailable, match="Timeout"):
            await hasty.get_pod("default", "any")
    finally:
        plane.apiserver.resume()
    with pytest.raises(NotFound):
        await hasty.get_pod("default", "any")
    await hasty.close()


async def test_a_dead_server_is_unavailable_and_a_new_one_is_found(plane: ControlPlane, cluster: KubeCluster) -> None:
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "any")
    plane.apiserver.kill()
    with pytest.raises(Unavailable):
        await cluster.get_pod("default", "any")
    plane.apiserver.restart()
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "any")


async def test_a_closed_connection_is_unavailable(plane: ControlPlane) -> None:
    cluster = await KubeCluster.connect(plane.kubeconfig())
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "any")
    await cluster.close()
    with pytest.raises(Unavailable):
        await cluster.get_pod("default", "any")


async def test_credentials_of_the_pod_that_it_runs_in(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kubelet replaces the token before it runs out: within a minute the new one is used."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: now), timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", clock)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(plane.authority))
    host, _, port = plane.server.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    for name in ("before", "after"):
        plane.kubectl("create", "serviceaccount", name)
    plane.kubectl(
        "create", "clusterrolebinding", "inside", "--clusterrole=cluster-admin", "--serviceaccount=default:after"
    )
    (tmp_path / "token").write_text(plane.kubectl("create", "token", "before").strip())
    cluster = await KubeCluster.connect(None)
    with pytest.raises(Refused, match="system:serviceaccount:default:before"):
        await cluster.get_pod("default", "any")
    (tmp_path / "token").write_text(plane.kubectl("create", "token", "after").strip())
    now += timedelta(seconds=61)
    with pytest.raises(NotFound):
        await cluster.get_pod("default", "any")
    await cluster.close()


async def test_credentials_that_are_none(tmp_path: Any, plane: ControlPlane) -> None:
    for text in ("", "{}", "- a", "contexts: 5", "\0", plane.kubeconfig().read_text().replace("admin", "", 1)):
        broken = tmp_path / "config"
        broken.write_text(text)
        with pytest.raises(InputError, match=r"no credentials for Kubernetes in .*config"):
            await KubeCluster.connect(broken)
    with pytest.raises(InputError, match="the service account of this pod"):
        await KubeCluster.connect(None)
