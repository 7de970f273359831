"""A cluster that several extender processes share, an API that fails on command, and an independent account."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from extender.binding.notice import Notice
from extender.binding.outcome import BindFailed
from extender.config import Settings
from extender.core import names
from extender.core.decisions import Decisions
from extender.core.errors import GpuExtenderError, Refused, Unavailable
from extender.embedded import EmbeddedCluster
from extender.reflector import Reflector
from extender.service import join, policy_of
from extender.snapshot import Snapshot

Json = dict[str, Any]
Hook = Callable[[], Awaitable[Any]]
CALLS = (
    "get_pod",
    "list_pods",
    "create_pod",
    "patch_pod",
    "delete_pod",
    "bind_pod",
    "patch_node",
    "get_config_map",
    "create_config_map",
    "put_config_map",
)
#: What may happen to one request.
FAULTS = ("refused", "never", "lost", "late", "late-killed", "killed-before", "killed-after")


class Killed(BaseException):
    """The process dies here: nothing of it runs any more."""


class FaultyApi:
    """A KubeApi in front of the shared cluster; requests fail as told, and others may act before and after each."""

    def __init__(self, cluster: EmbeddedCluster, fails_at: int | None = None, fault: str = "never") -> None:
        self._cluster = cluster
        #: The number of a request, or a method and which call of it, from 1 → its fault
        self.faults: dict[int | tuple[str, int], str] = {} if fails_at is None else {fails_at: fault}
        #: (method, which call of it, before or after it takes effect) → what happens then
        self.script: dict[tuple[str, int, str], Hook] = {}
        self.calls: list[str] = []
        #: Requests whose client has given up, and which the server has not carried out yet.
        self.late: list[Hook] = []
        self.nodes = cluster.nodes

    def __getattr__(self, name: str) -> Any:
        if name in CALLS:
            return lambda *arguments: self._call(name, *arguments)
        return getattr(self._cluster, name)

    def fail(self, method: str, which: int, error: Exception, when: str = "before") -> None:
        """That call ends so."""

        async def raise_it() -> None:
            raise error

        self.script[method, which, when] = raise_it

    async def _call(self, name: str, *arguments: Any) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        which = self.calls.count(name)
        await self._happens(name, which, "before")
        fault = self.faults.get(number) or self.faults.get((name, which))
        request = partial(getattr(self._cluster, name), *arguments)
        answer = await (request() if fault is None else self._fail(fault, request))
        await self._happens(name, which, "after")
        return answer

    async def _happens(self, method: str, which: int, when: str) -> None:
        # Real requests take time: whoever else is ready runs meanwhile.
        await asyncio.sleep(0)
        hook = self.script.get((method, which, when))
        if hook is not None:
            await hook()

    async def _fail(self, fault: str, request: Hook) -> Any:
        if fault == "killed-before":
            raise Killed
        if fault == "refused":
            raise Refused("403: not today")
        if fault.startswith("late"):
            self.late.append(request)
        elif fault in ("lost", "killed-after"):
            try:
                await request()
            finally:
                if fault == "killed-after":
                    raise Killed
        if fault == "late-killed":
            raise Killed
        raise Unavailable("no answer in time")

    def was_spared(self) -> bool:
        """Whether there was no request of the number that should fail: the last one has failed in another run."""
        return all(isinstance(number, int) and number >= len(self.calls) for number in self.faults)

    def work_again(self) -> None:
        """No request fails from now on."""
        self.faults.clear()

    async def land_late_requests(self) -> None:
        """The server carries out what it still has; nobody hears the answers."""
        for request in self.late:
            try:
                await request()
            except GpuExtenderError:
                continue  # Whatever it answers, nobody is there.
        self.late.clear()


class Process:
    """One extender process: its own ledger, its own watch."""

    def __init__(self, cluster: EmbeddedCluster, fails_at: int | None = None, fault: str = "never") -> None:
        self._cluster = cluster
        self.api = FaultyApi(cluster, fails_at, fault)
        settings = Settings(bind_timeout=5.0)
        self.decisions = Decisions(policy_of(settings), claim_ttl=5.0, timer=lambda: self.now)
        self._watcher = Reflector(self.decisions)
        self.now = 0.0
        self._lives = self._sees = True
        self.notices: list[Notice] = []
        self.waiting: list[Json] = []
        #: Namespace and name → the pod as this process's watch shows it; it may lag.
        self.seen: dict[tuple[str, str], Json] = {}
        self.binder, self.reservations, self.reconciler = join(
            settings,
            self.api,
            self.decisions,
            self._watcher,
            clock=lambda: self.now,
            process=uuid4().hex[:8],
            tell=self.notices.append,
            waiting=lambda: self.waiting,
            seen=lambda namespace, name: self.seen.get((namespace, name)),
        )
        cluster.attach(self._watcher)

    async def bind(self, pod: Json, node: str, uid: str | None = None) -> str | None:
        """None if bound, the sentence if not, ``killed`` if the process died."""
        metadata = pod["metadata"]
        try:
            await self.binder.bind(metadata["namespace"], metadata["name"], uid or metadata["uid"], node)
        except BindFailed as failure:
            return str(failure) or "failed"
        except Killed:
            self.die()
            return "killed"
        return None

    async def reconcile(self) -> bool:
        """One pass of the background work; False if the process died."""
        try:
            await self.reconciler.once()
        except Killed:
            self.die()
        return self._lives

    def sees_no_more(self) -> None:
        """Its watch shows nothing from now on, and it does not know. Idempotent."""
        if self._sees:
            self._cluster.detach(self._watcher)
        self._sees = False

    def die(self) -> None:
        """It sees and does nothing any more."""
        if self._lives:
            self.sees_no_more()
        self._lives = False


def shared_cluster(*nodes: Json) -> EmbeddedCluster:
    """A cluster of these nodes, with nothing on it."""
    return EmbeddedCluster(Snapshot(nodes=nodes, pods=(), resource_slices=(), resource_claims=()))


def violations(cluster: EmbeddedCluster, card_mib: int, gpus: int) -> list[str]:
    """The referee's word, from the pods alone: what is bound, and which devices reservation pods hold."""
    used: Counter[tuple[str, str]] = Counter()
    whole: Counter[str] = Counter()
    reserved: dict[str, list[str]] = defaultdict(list)
    for pod in cluster.pods():
        node = pod["spec"].get("nodeName")
        annotations: Mapping[str, str] = pod["metadata"].get("annotations") or {}
        if node is None:
            continue
        if pod["metadata"]["namespace"] == names.RESERVATION_NAMESPACE:
            # One that is silent holds a device, too: one that nobody can name.
            reserved[node].append(annotations.get(names.DEVICE, pod["metadata"]["name"]))
            continue
        for container in pod["spec"]["containers"]:
            whole[node] += int((container.get("resources", {}).get("limits") or {}).get(names.GPU_RESOURCE, 0))
        for device in filter(None, annotations.get(names.VISIBLE_DEVICES, "").split(",")):
            used[node, device] += int(annotations[names.MEMORY_MIB])
    found = [f"{where}: {mib} of {card_mib} MiB" for where, mib in used.items() if mib > card_mib]
    found += [f"{where}: nobody reserves it" for where in used if where[1] not in reserved[where[0]]]
    found += [f"{node}: a device twice" for node, devices in reserved.items() if len(set(devices)) != len(devices)]
    found += [
        f"{node}: {len(reserved[node])} reserved and {whole[node]} whole of {gpus}"
        for node in {*reserved, *whole}
        if len(reserved[node]) + whole[node] > gpus
    ]
    return found
