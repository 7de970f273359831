"""Writing node records: at most one PUT per node under way, and what arrives meanwhile shares the next.

In a burst the next one waits a moment for more of them: a PUT costs the API server, and every process that watches, as
much for one share as for ten. A burst is several that shared a PUT, or a pod that is asked about while another is being
bound; who binds one pod after the other never waits.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from extender.binding.api import KubeApi
from extender.core import names
from extender.core.errors import Conflict, GpuExtenderError, NotFound
from extender.core.record import NODE_KEY, RECORD_KEY, Entry, NodeRecord, Opened, record_name

#: How often a PUT may lose the race before its callers hear of it.
RACES: Final = 8
#: Seconds between a PUT in a burst and the next one for the same node, and for which a burst is taken to go on.
PAUSE: Final = 0.1

#: Gets the version that is being replaced; gives the next one, or says why not.
Change = Callable[[NodeRecord], NodeRecord | str]
ConfigMap = Mapping[str, Any]


class RecordRefused(GpuExtenderError):
    """The change does not fit the version that is in the API now; nothing has changed."""


class Evidence(Protocol):
    """What is known of the pods behind the entries."""

    def is_dead(self, node: str, entry: Entry) -> bool:
        """Whether the entry's pod is gone, has ended, or was bound to another node: it holds nothing there."""

    def is_gone(self, gpu_id: str) -> bool:
        """Whether the API has shown that the GPU's reservation pod is gone."""

    async def still_holds(self, node: str, opened: Opened) -> bool:
        """Whether a read of the GPU's reservation pod shows it at work, and not being closed. Raises ApiError."""

    async def rebuild(self, node: str) -> NodeRecord:
        """The record of a node that has lost it. Raises ApiError."""


@dataclass(frozen=True, slots=True)
class _Order:
    change: Change
    done: "asyncio.Future[NodeRecord]"


@dataclass(frozen=True, slots=True)
class _Version:
    """A record as the API had it."""

    record: NodeRecord
    #: None: there is no ConfigMap yet.
    resource_version: str | None
    fresh: bool


class NodeRecords:
    """The records of all nodes."""

    def __init__(self, api: KubeApi, evidence: Evidence) -> None:
        self._api = api
        self._evidence = evidence
        self._orders: dict[str, list[_Order]] = {}
        self._writers: dict[str, asyncio.Task[None]] = {}
        #: node → the version that our last PUT made
        self._latest: dict[str, _Version] = {}
        #: Until when, on the loop's clock, more orders are expected.
        self._burst_until = 0.0

    def expect_more(self) -> None:
        """Other pods are about to be bound."""
        self._burst_until = asyncio.get_running_loop().time() + PAUSE

    async def commit(self, node: str, change: Change) -> NodeRecord:
        """Change the node's record; the version that holds the change.

        Raises RecordRefused; UnreadableRecord for a record that is not ours to touch; ApiError where the PUT was
        refused or nobody knows whether it landed.
        """
        order = _Order(change, asyncio.get_running_loop().create_future())
        self._orders.setdefault(node, []).append(order)
        if node not in self._writers:
            self._writers[node] = asyncio.create_task(self._write_all(node))
        return await order.done

    async def read(self, node: str) -> NodeRecord:
        """The record as it stands in the API now. Raises ApiError, UnreadableRecord."""
        return (await self._get(node)).record

    async def _write_all(self, node: str) -> None:
        try:
            while orders := self._orders.pop(node, []):
                await self._write(node, orders)
                if len(orders) > 1 or asyncio.get_running_loop().time() < self._burst_until:
                    await asyncio.sleep(PAUSE)
        except BaseException as error:
            _fail(self._orders.pop(node, []), error)  # They came meanwhile, and have no other writer.
            raise
        finally:
            del self._writers[node]

    async def _write(self, node: str, orders: list[_Order]) -> None:
        """One PUT for all of them. Every future is done when this returns."""
        try:
            for _ in range(RACES):
                orders = await self._try_once(node, orders)
                if not orders:
                    return
            _fail(orders, Conflict(f"the record of node {node} changes too fast"))
        except BaseException as error:
            # Whatever it is, nobody may wait for ever.
            _fail(orders, error)
            if not isinstance(error, GpuExtenderError):
                raise

    async def _try_once(self, node: str, orders: list[_Order]) -> list[_Order]:
        """Those that must be tried again. Raises ApiError for those that were in the PUT."""
        version = self._latest.pop(node, None) or await self._get(node)
        record = version.record.without(self._dead(node, version.record)).without_closed(self._evidence.is_gone)
        accepted: list[_Order] = []
        refused: list[tuple[_Order, str]] = []
        for order in orders:
            changed = order.change(record)
            if isinstance(changed, str):
                refused.append((order, changed))
            else:
                record = changed
                accepted.append(order)
        if refused and not version.fresh:
            return orders  # What we remembered may be old: judge again on what the API has.
        if record != version.record:
            if not await self._may_enter(node, record.entering(version.record)):
                return orders
            try:
                self._latest[node] = await self._put(node, record, version.resource_version)
            except (Conflict, NotFound):
                return orders
        for order in accepted:
            if not order.done.done():  # Whoever waited may have been cancelled.
                order.done.set_result(record)
        for order, reason in refused:
            _fail([order], RecordRefused(reason))
        return []

    async def _may_enter(self, node: str, gpus: Iterable[Opened]) -> bool:
        """A watch that lags shows GPUs that have been closed since, and left the record.

        Read after the version that is replaced: whoever closes one from now on must move that version first.
        """
        for opened in gpus:
            if not await self._evidence.still_holds(node, opened):
                return False
        return True

    def _dead(self, node: str, record: NodeRecord) -> Iterable[tuple[str, str]]:
        return [(entry.pod_uid, entry.attempt) for entry in record.entries() if self._evidence.is_dead(node, entry)]

    async def _get(self, node: str) -> _Version:
        try:
            found = await self._api.get_config_map(names.RESERVATION_NAMESPACE, record_name(node))
        except NotFound:
            return _Version(await self._evidence.rebuild(node), None, fresh=True)
        text = (found.get("data") or {}).get(RECORD_KEY, "")
        return _Version(NodeRecord.parse(text), found["metadata"]["resourceVersion"], fresh=True)

    async def _put(self, node: str, record: NodeRecord, resource_version: str | None) -> _Version:
        config_map = config_map_of(node, record)
        if resource_version is None:
            stored = await self._api.create_config_map(config_map)
        else:
            config_map["metadata"]["resourceVersion"] = resource_version
            stored = await self._api.put_config_map(config_map)
        return _Version(record, stored["metadata"]["resourceVersion"], fresh=False)


def _fail(orders: Iterable[_Order], error: BaseException) -> None:
    for order in orders:
        if not order.done.done():
            order.done.set_exception(error)


def config_map_of(node: str, record: NodeRecord) -> dict[str, Any]:
    """The ConfigMap of a record."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(node),
            "namespace": names.RESERVATION_NAMESPACE,
            "labels": {"app.kubernetes.io/name": "gpu-extender", "app.kubernetes.io/component": "node-record"},
        },
        "data": {NODE_KEY: node, RECORD_KEY: record.dump()},
    }
