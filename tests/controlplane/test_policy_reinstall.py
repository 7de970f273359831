"""Policies that were deleted and are installed again: what docs/operations.md says of it is so."""

import json
import time
from collections.abc import Iterator

import pytest

from extender.core import names
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.in_force import wait_until_in_force
from tests.controlplane.policies import CONTAINER, install
from tests.controlplane.process import PATIENCE, wait_for
from tests.manifests import BASE

POLICIES = BASE / "policies"


@pytest.fixture(scope="module")
def reinstalled() -> Iterator[ControlPlane]:
    """The policies were away for a moment; since then the administrator has changed a setting."""
    with ControlPlane() as plane:
        install(plane)
        plane.kubectl("delete", "-k", str(POLICIES))
        wait_until_in_force(plane)
        plane.kubectl("apply", "--server-side", "-k", str(POLICIES))
        wait_until_in_force(plane)
        setting = json.dumps({"data": {"scheduler-name": "changed"}})
        plane.kubectl(
            "patch", "configmap", "-n", "gpu-extender", "gpu-extender-admission", "--type=merge", f"--patch={setting}"
        )
        yield plane


def scheduler_of_a_share(plane: ControlPlane) -> str:
    """What a share pod would be given, or why it is refused."""
    metadata = {"name": "probe", "annotations": {names.GPU_MEMORY: "1"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [CONTAINER]}}
    create = ("create", "--dry-run=server", "-f", "-", "-o", "jsonpath={.spec.schedulerName}")
    return plane.kubectl(*create, stdin=json.dumps(pod), check=False)


def test_meanwhile_they_refuse_what_they_always_refuse(reinstalled: ControlPlane) -> None:
    """Only settings are not read: nothing is let through for that."""
    metadata = {"name": "probe", "annotations": {names.GPU_FRACTION: "9"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [CONTAINER]}}
    said = reinstalled.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)
    assert "annotation gpu-fraction is" in said


def test_they_read_the_settings_again_once_the_api_server_starts_anew(reinstalled: ControlPlane) -> None:
    """Kubernetes issue 130887. If the first half fails, it is mended, and the page has a warning too many."""
    time.sleep(3)  # a change takes effect within milliseconds otherwise
    assert scheduler_of_a_share(reinstalled) != "changed"
    reinstalled.apiserver.restart()
    wait_for(
        lambda: scheduler_of_a_share(reinstalled) == "changed",
        PATIENCE,
        lambda: f"a share pod: {scheduler_of_a_share(reinstalled)}",
    )
