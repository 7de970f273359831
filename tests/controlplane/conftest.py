"""A control plane for tests: one per module, on one xdist worker, its logs shown when a test fails."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.controlplane.client import Client
from tests.controlplane.cluster import RUNNING, ControlPlane
from tests.controlplane.policies import grant_everything_on_pods, install
from tests.controlplane.users import TENANT


@pytest.hookimpl(tryfirst=True)  # before xdist looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two control planes at once are more than a small machine has memory and cores for."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("controlplane"))


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """etcd and kube-apiserver; a test that starts more or pauses something puts it right again."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def policed(plane: ControlPlane) -> ControlPlane:
    """The same with everything that the manifests have, admission in force."""
    install(plane)
    return plane


@pytest.fixture(scope="module")
def granted(policed: ControlPlane) -> ControlPlane:
    """Where only the policies stand between a tenant and any pod."""
    grant_everything_on_pods(policed, TENANT)
    return policed


@pytest.fixture
async def tenant(granted: ControlPlane) -> AsyncIterator[Client]:
    """Somebody who may do anything with pods, says RBAC."""
    async with Client(granted, TENANT) as client:
        yield client


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Client]:
    """A client that may do everything."""
    async with Client(plane) as client:
        yield client


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Add the ends of the components' logs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for plane in RUNNING:
            report.sections += [(f"log of {process.name}", process.tail()) for process in plane.processes]
