"""What the mutating policy has put on a pod is no proof of anything: it may be missing, set by others or taken away.

Its label above all. Whatever is refused is refused of a pod as it is in the end, with the label and without.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from extender.core import names
from tests.builders import make_pod
from tests.controlplane.client import Client, path_of
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import refused, what_if
from tests.controlplane.webhook import LABEL, patching

Json = dict[str, Any]
SHARE: Final = names.SHARE_LABEL.replace("/", "~1")
OURS: Final = {"valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{names.VISIBLE_DEVICES}']"}}}
FORGED: Final = f"annotation {names.VISIBLE_DEVICES} is written by the GPU extender only"
UNSCHEDULED: Final = "a pod that asks for a GPU share must name the scheduler that has the extender in schedulerName"


def pod_of(labels: Mapping[str, str | None], annotations: Mapping[str, str], **spec: Any) -> Json:
    """Its only container takes its devices where those of share pods do."""
    container = {"name": "main", "image": "x", "env": [{"name": "NVIDIA_VISIBLE_DEVICES", **OURS}]}
    metadata = {"name": "late", "labels": labels, "annotations": annotations}
    return {"metadata": metadata, "spec": {"containers": [container], **spec}}


def add(key: str, value: str) -> Json:
    return {"op": "add", "path": f"/metadata/annotations/{key.replace('/', '~1')}", "value": value}


# --- at creation: by the user -------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["true", "false", "", "no"])
async def test_a_label_that_the_user_sets_changes_no_verdict(tenant: Client, label: str) -> None:
    labels = {names.SHARE_LABEL: label}
    assert await refused(tenant.post(what_if(), pod_of(labels, {names.VISIBLE_DEVICES: "GPU-1"}))) == FORGED
    foreign = pod_of(labels, {names.GPU_MEMORY: "1"}, schedulerName="mine")
    assert (await refused(tenant.post(what_if(), foreign))).startswith('schedulerName is "mine" but')
    stored = await tenant.post(what_if(), pod_of(labels, {}))
    assert stored["metadata"]["labels"] == labels, "and a pod that asks for nothing stays as it is"


# --- at creation: by a webhook, which comes after the mutating policy ---------------------------------------


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        # The policy has passed the pod over, and what was passed over once is not looked at again.
        ([add(names.GPU_MEMORY, "1")], UNSCHEDULED),
        ([add(names.GPU_MEMORY, "1"), {"op": "add", "path": "/spec/nodeName", "value": "n"}], "must not set nodeName"),
        ([add(names.VISIBLE_DEVICES, "GPU-1")], FORGED),
        ([add(names.NUM_DEVICES, "2")], "the pod asks for no GPU share"),
    ],
    ids=["a request", "a request and a node", "a placement", "half a request"],
)
async def test_what_a_webhook_adds_to_a_pod_that_asked_for_nothing_is_refused(
    policed: ControlPlane, admin: Client, tenant: Client, patch: list[Json], sentence: str
) -> None:
    async with patching(policed, admin, patch):
        assert sentence in await refused(tenant.post(what_if(), pod_of({LABEL: ""}, {"example.com/a": ""})))


async def test_a_webhook_may_write_all_that_is_needed(policed: ControlPlane, admin: Client, tenant: Client) -> None:
    patch = [add(names.GPU_MEMORY, "1"), {"op": "add", "path": "/spec/schedulerName", "value": "gpu-scheduler"}]
    async with patching(policed, admin, patch):
        stored = await tenant.post(what_if(), pod_of({LABEL: ""}, {"example.com/a": ""}))
    assert stored["metadata"]["annotations"][names.GPU_MEMORY] == "1"


SIDECAR: Final = {"op": "add", "path": "/spec/containers/-", "value": {"name": "proxy", "image": "x"}}


async def test_a_container_that_a_webhook_adds_to_a_share_pod_is_told_to_see_no_device(
    policed: ControlPlane, admin: Client, tenant: Client
) -> None:
    """As every injector of sidecars does: the policy comes back to a pod that it has completed."""
    async with patching(policed, admin, [SIDECAR]):
        stored = await tenant.post(what_if(), pod_of({LABEL: ""}, {names.GPU_MEMORY: "1"}))
    main, proxy = stored["spec"]["containers"]
    assert (main["name"], proxy["name"]) == ("main", "proxy")
    assert proxy["env"] == [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]


async def test_a_container_beside_a_request_that_a_webhook_writes_must_say_that_it_sees_no_device(
    policed: ControlPlane, admin: Client, tenant: Client
) -> None:
    """The policy has passed that pod over, and does not come back."""
    patch = [add(names.GPU_MEMORY, "1"), {"op": "add", "path": "/spec/schedulerName", "value": "gpu-scheduler"}]
    async with patching(policed, admin, [*patch, SIDECAR]):
        sentence = await refused(tenant.post(what_if(), pod_of({LABEL: ""}, {"example.com/a": ""})))
    assert sentence.startswith('container proxy has no GPU share but does not set NVIDIA_VISIBLE_DEVICES to "void"')


@pytest.mark.parametrize("value", [None, "false"])
async def test_a_label_that_a_webhook_takes_away_comes_back(
    policed: ControlPlane, admin: Client, tenant: Client, value: str | None
) -> None:
    # As a webhook would that allows certain labels only; a share pod has this one by then, others do not.
    gone: Json = {"op": "add", "path": f"/metadata/labels/{SHARE}", "value": value or "x"}
    patch = [gone] if value else [gone, {"op": "remove", "path": f"/metadata/labels/{SHARE}"}]
    async with patching(policed, admin, patch):
        body = pod_of({LABEL: ""}, {names.GPU_MEMORY: "1"})
        assert (await tenant.post(what_if(), body))["metadata"]["labels"][names.SHARE_LABEL] == "true"
        body["spec"]["schedulerName"] = "mine"
        assert (await refused(tenant.post(what_if(), body))).startswith('schedulerName is "mine" but')


async def test_a_webhook_that_comes_back_takes_only_the_check_against_the_settings_away(
    policed: ControlPlane, admin: Client, tenant: Client
) -> None:
    """What docs/admission.md says cannot be closed: nothing is asked after the last webhook but by the label."""
    path = f"/metadata/labels/{SHARE}"
    patch: list[Json] = [{"op": "add", "path": path, "value": "x"}, {"op": "remove", "path": path}]
    async with patching(policed, admin, patch, again=True):
        body = pod_of({LABEL: ""}, {names.GPU_MEMORY: "1"}, schedulerName="mine")
        assert names.SHARE_LABEL not in (await tenant.post(what_if(), body))["metadata"]["labels"]
        body["spec"]["containers"][0]["env"][0] = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
        assert (await refused(tenant.post(what_if(), body))).startswith("container main sets NVIDIA_VISIBLE_DEVICES")


# --- later --------------------------------------------------------------------------------------------------


@pytest.fixture
async def ordinary(admin: Client, tenant: Client) -> AsyncIterator[Json]:
    """A waiting pod that asks for nothing and would see a device if it had the annotation."""
    pod = await tenant.post("/api/v1/namespaces/default/pods", pod_of({"app": "a"}, {}))
    assert names.SHARE_LABEL not in pod["metadata"]["labels"]
    yield pod
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


@pytest.fixture
async def unlabelled(admin: Client, tenant: Client) -> AsyncIterator[Json]:
    """A waiting share pod whose owner has taken the label away again, which he may."""
    pod = await tenant.create_pod(make_pod("bare").gpu_memory(1).build())
    yield await tenant.patch(path_of(pod), {"metadata": {"labels": {names.SHARE_LABEL: None}}})
    await admin.delete(path_of(pod), {"gracePeriodSeconds": 0})


@pytest.mark.parametrize("subresource", ["", "/status"])
async def test_nobody_adds_a_placement_to_a_pod_without_the_label(
    tenant: Client, ordinary: Json, unlabelled: Json, subresource: str
) -> None:
    change = {"metadata": {"annotations": {names.VISIBLE_DEVICES: "GPU-1"}}}
    for pod in (ordinary, unlabelled):
        assert await refused(tenant.patch(f"{path_of(pod)}{subresource}", change)) == FORGED


async def test_a_request_that_is_added_to_a_pod_without_the_label_is_judged(tenant: Client, ordinary: Json) -> None:
    change = {"metadata": {"annotations": {names.GPU_MEMORY: "much"}}}
    assert 'annotation gpu-memory is "much" but' in await refused(tenant.patch(path_of(ordinary), change))


@pytest.mark.parametrize("label", [None, "false", "true"])
async def test_a_request_is_judged_whatever_becomes_of_the_label_with_it(
    tenant: Client, unlabelled: Json, label: str | None
) -> None:
    metadata = {"labels": {names.SHARE_LABEL: label}, "annotations": {names.GPU_MEMORY: "much"}}
    sentence = await refused(tenant.patch(path_of(unlabelled), {"metadata": metadata}))
    assert sentence.startswith('annotation gpu-memory is "much" but')


async def test_a_share_pod_without_the_label_is_debugged_without_devices(tenant: Client, unlabelled: Json) -> None:
    entry = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    body = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "x", "env": [entry]}]}}
    kind = "application/strategic-merge-patch+json"
    request = tenant.send("PATCH", f"{path_of(unlabelled)}/ephemeralcontainers", body, kind)
    assert (await refused(request)).startswith("container debug sets NVIDIA_VISIBLE_DEVICES")
