"""The product on a real control plane: manifests applied, extenders and schedulers as processes with their rights.

::

    with Stage() as stage:
        extender = stage.start_extender()
        scheduler = stage.start_scheduler(extender)
"""

import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from extender.core import names, reservation
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.process import Process, eventually, free_port
from tests.controlplane.users import EXTENDER, User, kubeconfig
from tests.manifests import BASE, container, scheduler_configuration

SCHEDULER: Final = User.service_account("gpu-extender", "gpu-scheduler")
AGENT: Final = User.service_account(names.RESERVATION_NAMESPACE, reservation.SERVICE_ACCOUNT)
#: Who the product's processes are, beside the extender.
PRODUCT: Final = (SCHEDULER, AGENT)
#: Settings for tests: less patience than people would want.
QUICK: Final[Mapping[str, Any]] = {"report_timeout": 9, "idle_timeout": 6}
#: The metric that says since when a bind is under way, or its outcome unknown; 0 without one.
OLDEST_BIND: Final = "gpu_extender_assumed_share_age_seconds"
TREE: Final = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Served:
    """An extender's process and where it answers."""

    process: Process
    url: str

    @property
    def observed(self) -> str:
        """Where it is asked for its health, and for what people look at."""
        return self.process.health.removesuffix("/readyz")

    async def get(self, path: str) -> Any:
        """What people and Prometheus look at. Raises httpx.TransportError where it does not answer."""
        async with httpx.AsyncClient(base_url=self.observed, trust_env=False, timeout=30) as client:
            return (await client.get(path)).raise_for_status().json()

    async def metric(self, sample: str) -> float:
        """The sum of the samples whose names and labels match. Raises httpx.TransportError where it does not answer."""
        async with httpx.AsyncClient(base_url=self.observed, trust_env=False, timeout=30) as client:
            text = (await client.get("/metrics")).raise_for_status().text
        return sum(map(float, re.findall(rf"^{sample} (\S+)$", text, re.MULTILINE)))

    async def is_in_step(self) -> bool:
        """Whether what it has is what there is, by its own word."""
        return bool((await self.get("/check"))["differences"] == [])

    async def is_at_work(self, nodes: Collection[str]) -> bool:
        """Whether it may still open a GPU on one of these nodes, or bind a pod: what it has not seen the end of."""
        if not self.process.is_running():
            return False
        try:
            shown = {found["name"] for found in (await self.get("/inspect"))["nodes"]}
            return not shown.isdisjoint(nodes) or await self.metric(OLDEST_BIND) > 0
        except httpx.HTTPError:
            return self.process.is_running()

    async def verb(self, name: str, body: Mapping[str, Any]) -> Any:
        """What kube-scheduler asks. Raises httpx.TransportError where it does not answer."""
        async with httpx.AsyncClient(base_url=f"{self.url}/scheduler", trust_env=False, timeout=30) as client:
            return (await client.post(f"/{name}", json=dict(body))).raise_for_status().json()

    async def bind(self, pod: Mapping[str, Any], node: str) -> str:
        """bind's ``Error``: empty where the pod is bound."""
        who = {"PodName": pod["metadata"]["name"], "PodNamespace": pod["metadata"]["namespace"]}
        return str((await self.verb("bind", {**who, "PodUID": pod["metadata"]["uid"], "Node": node}))["Error"])


class Stage:
    """A control plane with the product installed."""

    def __init__(self, plane: ControlPlane | None = None) -> None:
        self.plane = plane or ControlPlane(more_users=PRODUCT)
        self._processes: list[Process] = []
        #: Since ``stop``, those that have been killed among them.
        self.extenders: list[Served] = []

    def __enter__(self) -> Self:
        self.plane.__enter__()
        try:
            self.plane.kubectl("apply", "--server-side", "--validate=strict", "-k", str(BASE))
        except BaseException:
            self.plane.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.plane.close()

    def stop(self) -> None:
        """End the product's processes; the control plane stays."""
        for process in self._processes:
            process.kill()
            self.plane.processes.remove(process)
        self._processes.clear()
        self.extenders.clear()

    def start_extender(
        self,
        name: str = "extender",
        server: str | None = None,
        /,
        *,
        wait: bool = True,
        port: int | None = None,
        **settings: object,
    ) -> Served:
        """One that is in step when this returns, unless ``wait`` is off.

        It has the rights and the settings of the manifests and nothing more, but for ``settings``. ``server``: where
        it finds the API server, if not where that is. Over TLS it needs ``observe_port``, for nobody here has a
        certificate.
        """
        port = port or free_port()
        url = f"{'https' if 'tls_cert_file' in settings else 'http'}://127.0.0.1:{port}"
        observed = f"http://127.0.0.1:{settings['observe_port']}" if "observe_port" in settings else url
        options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
        command = [sys.executable, "-m", "extender", "serve", f"--port={port}", *options]
        credentials = self.plane.folder / f"{name}.kubeconfig"
        credentials.write_text(kubeconfig(EXTENDER, server or self.plane.server, self.plane.authority))
        variables = settings_of_the_manifests() | {
            "GPU_EXTENDER_KUBECONFIG": str(credentials),
            "PATH": os.environ["PATH"],
            "HOME": str(self.plane.folder),
            "PYTHONPATH": str(TREE),
        }
        process = Process(name, command, self.plane.folder / f"{name}.log", f"{observed}/readyz", variables)
        self.plane.processes.append(process)  # its log is shown when a test fails
        self._processes.append(process)
        process.start()
        served = Served(process, url)
        self.extenders.append(served)
        if wait:
            process.wait_until_ready()
        return served

    def start_scheduler(self, extender: Served | None, name: str = "gpu-scheduler", **changes: Any) -> Process:
        """A kube-scheduler with the configuration of the manifests that speaks to that extender, or to none."""
        process = self.plane.start_scheduler(configuration(extender) | changes, name, SCHEDULER)
        self._processes.append(process)
        return process


async def inspected(extender: Served, node: str) -> Any:
    """The node as the extender shows it, once it has seen it."""
    found: list[Any] = []

    async def is_shown() -> bool:
        found[:] = [shown for shown in (await extender.get("/inspect"))["nodes"] if shown["name"] == node]
        return bool(found)

    await eventually(is_shown, lambda: f"{extender.process.name} does not show node {node}")
    return found[0]


async def has_lost_a_card(extender: Served, node: str) -> bool:
    """Whether the extender knows that a card of the node is held by nobody."""
    return bool((await inspected(extender, node))["unusable"] == "ReservationLost")


def settings_of_the_manifests() -> dict[str, str]:
    """As environment variables; without the observe listener, whose port two processes here cannot share."""
    given = container("extender")["env"]
    return {entry["name"]: entry["value"] for entry in given if "value" in entry and "OBSERVE" not in entry["name"]}


def configuration(served: Served | None) -> dict[str, Any]:
    """What kube-scheduler reads, with that extender's address; no leader to wait for."""
    found = scheduler_configuration()
    (extender,) = found["extenders"]
    extenders = [] if served is None else [{**extender, "urlPrefix": f"{served.url}/scheduler"}]
    return {**found, "leaderElection": {"leaderElect": False}, "extenders": extenders}
