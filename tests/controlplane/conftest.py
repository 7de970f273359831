"""A control plane for tests: one per module, on one xdist worker, its logs shown when a test fails."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane

_PLANES: Final = pytest.StashKey[list[ControlPlane]]()


@pytest.hookimpl(tryfirst=True)  # before xdist looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two control planes at once are more than a small machine has memory and cores for."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("controlplane"))


@contextmanager
def shown(config: pytest.Config, plane: ControlPlane) -> Iterator[None]:
    """The logs of its processes are shown with each test that fails meanwhile."""
    running = config.stash.setdefault(_PLANES, [])
    running.append(plane)
    yield
    running.remove(plane)


@pytest.fixture(scope="module")
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver; a test that starts more or pauses something puts it right again."""
    with ControlPlane() as plane, shown(request.config, plane):
        yield plane


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Client]:
    """A client that may do everything."""
    async with Client(plane) as client:
        yield client


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the ends of the components' logs to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for plane in item.config.stash.get(_PLANES, []):
            report.sections += [(f"log of {process.name}", process.tail()) for process in plane.processes]
