"""The manifests as the API server, kube-scheduler and a real agent meet them."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from extender.core import names, reservation
from extender.core.reservation import Template, reservation_pod
from tests.agent_stage import gpu, show
from tests.builders import make_node
from tests.controlplane.client import Answer, Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import PATIENCE, eventually, wait_for
from tests.controlplane.real_agent import RealAgent, command, environment, service_account, token_for
from tests.controlplane.referee import Referee
from tests.controlplane.users import EXTENDER, User
from tests.manifests import BASE, OVERLAYS, container, one, rendered, rights, scheduler_configuration

SCHEDULER: Final = User.service_account("gpu-extender", "gpu-scheduler")
AGENT: Final = User.service_account(names.RESERVATION_NAMESPACE, reservation.SERVICE_ACCOUNT)
PODS: Final = f"/api/v1/namespaces/{names.RESERVATION_NAMESPACE}/pods"
POD_MONITORS: Final = Path(__file__).parent / "pod_monitor.yaml"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(more_users=[SCHEDULER, AGENT]) as plane:
        plane.kubectl("apply", "-k", str(BASE))  # into the empty cluster, as the page says it
        plane.kubectl("apply", "-f", str(POD_MONITORS))
        plane.kubectl("wait", "--for=condition=Established", "-f", str(POD_MONITORS))
        yield plane


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client(plane) as client:
        yield client


def reservation_manifest(name: str) -> dict[str, Any]:
    return reservation_pod(name, "node-1", "nvidia.com/gpu", Template("gpu-scheduler", "gpu-extender:0.1.0"))


# --- what the API server says -------------------------------------------------------------------------------


def test_one_command_installs_everything_and_may_be_repeated(plane: ControlPlane) -> None:
    again = plane.kubectl("apply", "-k", str(BASE))
    objects = len(list(yaml.safe_load_all(rendered(BASE))))
    assert again.count(" unchanged") + again.count(" configured") == objects
    # From here on by the server; what the first way has written is its own no more.
    by_the_server = ("apply", "--server-side", "--validate=strict", "-k", str(BASE))
    assert plane.kubectl(*by_the_server, "--force-conflicts").count("serverside-applied") == objects
    assert plane.kubectl(*by_the_server).count("serverside-applied") == objects


@pytest.mark.parametrize("folder", [BASE, *OVERLAYS], ids=lambda folder: folder.name)
def test_every_variant_passes_strict_validation(plane: ControlPlane, folder: Path) -> None:
    plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "-k", str(folder)
    )


async def test_pod_security_restricted_takes_the_pods_of_the_deployment(admin: Client) -> None:
    template = one("Deployment", "gpu-extender", "gpu-extender")["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": template["spec"]}
    await admin.post("/api/v1/namespaces/gpu-extender/pods?dryRun=All&fieldValidation=Strict", pod)


async def test_pod_security_restricted_takes_reservation_pods_and_no_root(admin: Client) -> None:
    manifest = reservation_manifest("share-dry")
    path = f"{PODS}?dryRun=All&fieldValidation=Strict"
    stored = await admin.post(path, manifest)
    assert stored["spec"]["priority"] == one("PriorityClass", reservation.PRIORITY_CLASS)["value"]
    assert stored["spec"]["preemptionPolicy"] == "Never"
    manifest["spec"]["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(Answer, match="violates PodSecurity"):
        await admin.post(path, manifest)


# --- rights, as RBAC sees them ------------------------------------------------------------------------------

GROUPS: Final = {
    "leases": "coordination.k8s.io",
    "resourceslices": "resource.k8s.io",
    "resourceclaims": "resource.k8s.io",
}


Right = tuple[str | None, str, str, str | None]


async def may(admin: Client, user: User, right: Right) -> bool:
    """Whether RBAC lets the user do it: namespace (None: everywhere), verb, resource, object name."""
    namespace, verb, resource, name = right
    resource, _, sub = resource.partition("/")
    asked = {"verb": verb, "resource": resource, "subresource": sub, "group": GROUPS.get(resource, "")}
    asked |= {"namespace": namespace or "", "name": name or ""}
    spec = {"user": user.name, "groups": list(user.groups), "resourceAttributes": asked}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = await admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return bool(answer["status"]["allowed"])


async def test_every_right_that_the_manifests_mean_is_granted(admin: Client) -> None:
    for user, account, namespace in (
        (EXTENDER, "gpu-extender", "gpu-extender"),
        (SCHEDULER, "gpu-scheduler", "gpu-extender"),
        (AGENT, reservation.SERVICE_ACCOUNT, names.RESERVATION_NAMESPACE),
    ):
        for right in rights(account, namespace):
            assert await may(admin, user, right), (account, right)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace"),
    [
        ("create", "pods", "team-a"),
        ("delete", "pods", "team-a"),
        ("update", "pods", "team-a"),
        ("patch", "pods/status", "team-a"),
        ("get", "secrets", "gpu-extender"),
        ("get", "configmaps", "team-a"),
        ("delete", "configmaps", names.RESERVATION_NAMESPACE),
        ("get", "nodes", None),
        ("patch", "nodes/status", None),
        ("get", "leases", "kube-system"),
    ],
)
async def test_the_extender_may_not(admin: Client, verb: str, resource: str, namespace: str | None) -> None:
    assert not await may(admin, EXTENDER, (namespace, verb, resource, None))


async def test_an_agent_may_touch_nothing_outside_its_namespace(admin: Client) -> None:
    for verb in ("get", "patch"):
        assert not await may(admin, AGENT, ("team-a", verb, "pods", None))
    assert not await may(admin, AGENT, (names.RESERVATION_NAMESPACE, "list", "pods", None))


# --- the scheduler ------------------------------------------------------------------------------------------


def test_kube_scheduler_starts_with_configuration_and_rights_of_the_manifests(plane: ControlPlane) -> None:
    scheduler = plane.start_scheduler(scheduler_configuration(), "gpu-scheduler", SCHEDULER)
    try:
        lease = ("get", "lease", "gpu-scheduler", "-n", "gpu-extender", "-o", "jsonpath={.spec.holderIdentity}")
        wait_for(lambda: plane.kubectl(*lease, check=False).count("_") == 1, PATIENCE, scheduler.tail)
        log = scheduler.log.read_text()
        assert "forbidden" not in log
        assert "127.0.0.1:8888" in log
    finally:
        scheduler.stop()


# --- the agent, over TLS with a token of its service account ------------------------------------------------


def token(plane: ControlPlane, pod: Mapping[str, Any]) -> str:
    """What a kubelet mounts into that reservation pod."""

    async def asked() -> str:
        async with Client(plane) as admin:
            return await token_for(admin, pod)

    return asyncio.run(asked())


def test_the_agent_reports_with_the_rights_of_its_account_and_never_again(plane: ControlPlane, tmp_path: Path) -> None:
    manifest = json.dumps(reservation_manifest("share-1"))
    pod = json.loads(plane.kubectl("create", "-f", "-", "-o", "json", stdin=manifest))
    show(tmp_path / "nvml.json", gpu("GPU-1", 81559))
    (tmp_path / "boot_id").write_text("boot-1\n")
    variables = environment(plane, pod, service_account(plane, token(plane, pod), tmp_path), tmp_path)
    written = {names.DEVICE: "GPU-1", names.DEVICE_MEMORY_MIB: "81559", names.BOOT_ID: "boot-1"}

    def annotations() -> dict[str, str]:
        text = plane.kubectl("get", "pod", "share-1", "-n", names.RESERVATION_NAMESPACE, "-o", "json")
        return dict(json.loads(text)["metadata"].get("annotations", {}))

    with subprocess.Popen(command(pod), env=variables, stderr=subprocess.PIPE) as agent:
        try:
            wait_for(lambda: annotations() == written, PATIENCE, lambda: str(annotations()))
        finally:
            agent.kill()

    # The container starts again with another device: that is said, and not written over the first.
    show(tmp_path / "nvml.json", gpu("GPU-2", 81559))
    again = subprocess.run(command(pod), env=variables, check=False, capture_output=True, text=True)
    assert again.returncode == 2
    assert "reported GPU-1, holds GPU-2" in again.stderr
    assert annotations() == written | {names.DEVICE_HEALTH: "OtherDevice: reported GPU-1, holds GPU-2"}


async def test_in_the_referees_nodes_the_real_agent_reports_and_tells_of_an_xid(
    plane: ControlPlane, admin: Client
) -> None:
    agent = RealAgent(plane)
    async with Referee(admin, seed=5, agent=agent) as referee:
        await referee.add_node(make_node("node-1").cpu(4).gpus(2, mib=1000).build())
        pod = await admin.post(PODS, reservation_manifest("share-2"))
        await admin.bind(pod, "node-1")
        written = await annotations_with(admin, "share-2", names.DEVICE)
        (device,) = referee.running()[f"{names.RESERVATION_NAMESPACE}/share-2"].devices
        assert written == {
            names.DEVICE: device.uuid,
            names.DEVICE_MEMORY_MIB: "1000",
            names.BOOT_ID: referee.nodes["node-1"].boot_id,
        }
        show(agent.folder(pod) / "nvml.json", gpu(device.uuid, device.mib, xids=[79]))
        health = (await annotations_with(admin, "share-2", names.DEVICE_HEALTH))[names.DEVICE_HEALTH]
        assert health == f"Xid: the driver reported XID 79 for {device.uuid}"
        await admin.delete(f"{PODS}/share-2", {"gracePeriodSeconds": 0})
        await referee.remove_node("node-1")


async def annotations_with(admin: Client, pod: str, key: str) -> dict[str, str]:
    """The pod's annotations once that one is there."""
    found: dict[str, str] = {}

    async def there() -> bool:
        found.update((await admin.get(f"{PODS}/{pod}"))["metadata"].get("annotations") or {})
        return key in found

    await eventually(there, lambda: f"{pod} has no {key}")
    return found


def test_the_deployment_runs_what_the_command_line_has() -> None:
    from extender.cli import COMMANDS

    assert container("extender")["args"][0] in COMMANDS
    assert reservation_manifest("share-1")["spec"]["containers"][0]["args"][0] in COMMANDS
