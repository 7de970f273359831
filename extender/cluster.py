"""A ``KubeApi`` over a real cluster: the requests that this project makes, and no other.

A list never asks for ``resourceVersion=0``: the answer would come from a cache that may lag behind any time.
A Conflict that ``put_config_map`` or ``put_lease`` raises may be our own doing: the HTTP client repeats an idempotent
request once when a kept connection turns out to be closed. Read again before concluding anything from it.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from extender.core import names
from extender.core.errors import Unavailable
from extender.kube import MERGE_PATCH, Connection, Json, Limits, Request, parse, refusal_of

Object = Mapping[str, Any]

#: Objects in one answer to a list: some 2 MB of pods, which take the event loop some 10 ms.
PAGE_SIZE: Final = 500
#: Seconds after which the server ends a watch, so that load spreads over API servers again.
WATCH_SECONDS: Final = 600


class Collection(StrEnum):
    """What can be listed and watched: its path."""

    NODES = "/api/v1/nodes"
    PODS = "/api/v1/pods"
    #: Node records and the owner of the reservation pods.
    CONFIG_MAPS = f"/api/v1/namespaces/{names.RESERVATION_NAMESPACE}/configmaps"
    RESOURCE_SLICES = "/apis/resource.k8s.io/v1/resourceslices"
    RESOURCE_CLAIMS = "/apis/resource.k8s.io/v1/resourceclaims"

    @property
    def noun(self) -> str:
        """For people."""
        return self.rpartition("/")[2]

    @property
    def may_be_unserved(self) -> bool:
        """Whether an API server may be without it. Of any other, 404 says that this is no Kubernetes API."""
        return self in (Collection.RESOURCE_SLICES, Collection.RESOURCE_CLAIMS)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list, and the version of the whole."""

    items: list[Json]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark's object has a resourceVersion only."""

    type: str
    object: Json

    @property
    def resource_version(self) -> str:
        """Where to go on watching after this."""
        return str(self.object["metadata"].get("resourceVersion") or "")


class KubeCluster:
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, kubeconfig: Path | None, limits: Limits | None = None) -> Self:
        """See ``Connection.open``. Raises InputError."""
        return cls(await Connection.open(kubeconfig, limits or Limits()))

    async def close(self) -> None:
        """End every connection."""
        await self._connection.close()

    # --- pods ---------------------------------------------------------------------------------------------

    async def get_pod(self, namespace: str, name: str) -> Json:
        """See KubeApi."""
        return await self._object("GET", _in(namespace, "pods", name))

    async def list_pods(self, node: str) -> list[Json]:
        """See KubeApi."""
        pages = self._pages(Collection.PODS, [("fieldSelector", f"spec.nodeName={node}")])
        return [pod async for page in pages for pod in page.items]

    async def create_pod(self, pod: Object) -> Json:
        """See KubeApi."""
        namespace = (pod.get("metadata") or {}).get("namespace") or "default"
        return await self._object("POST", _in(namespace, "pods"), pod)

    async def delete_pod(
        self, namespace: str, name: str, uid: str, grace_seconds: int | None = None, version: str | None = None
    ) -> None:
        """See KubeApi. ``grace_seconds`` None: the pod's own."""
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._send("DELETE", _in(namespace, "pods", name), options)

    async def bind_pod(self, binding: Object) -> None:
        """See KubeApi."""
        metadata = binding["metadata"]
        await self._send("POST", _in(metadata["namespace"], "pods", metadata["name"], "binding"), binding)

    async def patch_pod(self, namespace: str, name: str, patch: Object) -> Json:
        """Merge-patch; the pod as it stands then. Another ``metadata.uid`` than the pod's raises Refused."""
        return await self._object("PATCH", _in(namespace, "pods", name), patch)

    # --- nodes, records, leases, events -------------------------------------------------------------------

    async def patch_node(self, name: str, patch: Object) -> Json:
        """See KubeApi."""
        return await self._object("PATCH", f"{Collection.NODES}/{_safe(name)}", patch)

    async def get_config_map(self, namespace: str, name: str) -> Json:
        """The ConfigMap as it stands now. Raises NotFound."""
        return await self._object("GET", _in(namespace, "configmaps", name))

    async def create_config_map(self, config_map: Object) -> Json:
        """Store a new ConfigMap. Raises Conflict if its name is taken."""
        return await self._object("POST", _in(config_map["metadata"]["namespace"], "configmaps"), config_map)

    async def put_config_map(self, config_map: Object) -> Json:
        """Replace the ConfigMap. Raises Conflict unless its resourceVersion is the one that stands."""
        metadata = config_map["metadata"]
        return await self._object("PUT", _in(metadata["namespace"], "configmaps", metadata["name"]), config_map)

    async def get_lease(self, namespace: str, name: str) -> Json:
        """The Lease as it stands now. Raises NotFound."""
        return await self._object("GET", f"{_leases(namespace)}/{_safe(name)}")

    async def create_lease(self, lease: Object) -> Json:
        """Store a new Lease. Raises Conflict if its name is taken."""
        return await self._object("POST", _leases(lease["metadata"]["namespace"]), lease)

    async def put_lease(self, lease: Object) -> Json:
        """Replace the Lease. Raises Conflict unless its resourceVersion is the one that stands."""
        metadata = lease["metadata"]
        return await self._object("PUT", f"{_leases(metadata['namespace'])}/{_safe(metadata['name'])}", lease)

    async def create_event(self, event: Object) -> None:
        """Store a v1 Event in its namespace."""
        await self._send("POST", _in(event["metadata"]["namespace"], "events"), event)

    # --- lists and watches --------------------------------------------------------------------------------

    def list_all(self, collection: Collection, page_size: int = PAGE_SIZE) -> AsyncIterator[Page]:
        """Pages of one consistent list, at least one. Raises Gone when reading them took too long: begin again."""
        return self._pages(collection, [], page_size)

    async def _pages(
        self, collection: Collection, selector: list[tuple[str, str]], page_size: int = PAGE_SIZE
    ) -> AsyncIterator[Page]:
        cursor = ""
        while True:
            query = [*selector, ("limit", str(page_size))] + ([("continue", cursor)] if cursor else [])
            listed = parse(await self._connection.send(Request("GET", collection, query=query), page=True))
            metadata, items = listed.get("metadata"), listed.get("items")
            if not isinstance(metadata, dict) or not isinstance(items, list):
                raise Unavailable("the Kubernetes API answered with something that is no list")
            yield Page(items, str(metadata.get("resourceVersion") or ""))
            cursor = str(metadata.get("continue") or "")
            if not cursor:
                return

    async def watch(self, collection: Collection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """What changed after that version, bookmarks included. It ends when the server ends it: go on from the last.

        Raises Gone where the server no longer knows what changed since: list again.
        """
        query = [("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", resource_version)]
        query.append(("timeoutSeconds", str(WATCH_SECONDS)))
        async for line in self._connection.stream(Request("GET", collection, query=query)):
            yield _event(parse(line))

    # --- inside -------------------------------------------------------------------------------------------

    async def _object(self, method: str, path: str, body: Object | None = None) -> Json:
        answer = parse(await self._send(method, path, body))
        _check(answer)
        return answer

    async def _send(self, method: str, path: str, body: Object | None = None) -> bytes:
        if method == "PATCH":
            return await self._connection.send(Request(method, path, body, content=MERGE_PATCH))
        return await self._connection.send(Request(method, path, body))


def _event(line: Json) -> WatchEvent:
    kind, content = line.get("type"), line.get("object")
    if not isinstance(kind, str) or not isinstance(content, dict):
        raise Unavailable("the Kubernetes API sent something that is no watch event")
    if kind == "ERROR":
        raise refusal_of(content)
    _check(content)
    return WatchEvent(kind, content)


def _check(content: Json) -> None:
    if not isinstance(content.get("metadata"), dict):
        raise Unavailable("the Kubernetes API answered with an object that has no metadata")


def _in(namespace: str, *path: str) -> str:
    return f"/api/v1/namespaces/{_safe(namespace)}/" + "/".join(map(_safe, path))


def _leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{_safe(namespace)}/leases"


def _safe(part: str) -> str:
    return quote(part, safe="")
