"""One control plane with the product's manifests for all of these tests; each module starts the processes it needs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.in_force import wait_until_in_force
from tests.controlplane.process import Process
from tests.controlplane.scene import Scene
from tests.controlplane.stage import PRODUCT, QUICK, Served, Stage
from tests.manifests import BASE


@pytest.fixture(scope="package")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The API server's log of what the extenders have asked for: one JSON object a line."""
    return tmp_path_factory.mktemp("audit") / "log"


@pytest.fixture(scope="package")
def stage(audit: Path) -> Iterator[Stage]:
    """Nothing of the product runs in it yet."""
    flags = [f"--audit-policy-file={Path(__file__).parent / 'audit.yaml'}", f"--audit-log-path={audit}"]
    with Stage(ControlPlane(PRODUCT, flags)) as stage:
        yield stage


@pytest.fixture(scope="module")
def extender(stage: Stage) -> Iterator[Served]:
    """In step, and the module's only one unless it starts more."""
    yield stage.start_extender(**QUICK)
    stage.stop()


@pytest.fixture(scope="module")
def scheduler(stage: Stage, extender: Served) -> Process:
    """It asks that extender."""
    return stage.start_scheduler(extender)


@pytest.fixture(scope="module")
def any_scheduler(stage: Stage) -> Iterator[None]:
    """Share pods may name other schedulers than the administrator has said: his policy is away."""
    stage.plane.kubectl("delete", "validatingadmissionpolicybinding", "gpu-extender-settings")
    wait_until_in_force(stage.plane)
    yield
    stage.plane.kubectl("apply", "--server-side", "-k", str(BASE))


@pytest.fixture
async def scene(stage: Stage, scheduler: Process) -> AsyncIterator[Scene]:
    """Extender and scheduler run; nodes and pods are the test's."""
    async with Scene(stage) as scene:
        yield scene
