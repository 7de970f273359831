"""A client that speaks only the public surface: HTTP paths and JSON."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import httpx

from extender.app import create_app
from extender.config import Settings
from extender.embedded import EmbeddedCluster
from extender.service import Service, embedded_service
from extender.snapshot import Snapshot

Json = dict[str, Any]


def serve(*nodes: Json, pods: Iterable[Json] = (), **settings: Any) -> "Extender":
    """The service on an embedded cluster of these nodes and pods, in this process."""
    snapshot = Snapshot(nodes=tuple(nodes), pods=tuple(pods), resource_slices=(), resource_claims=())
    return Extender(embedded_service(Settings(**settings), snapshot), [node["metadata"]["name"] for node in nodes])


class Extender:
    """The extender as kube-scheduler and kubectl reach it."""

    def __init__(self, service: Service, nodes: Sequence[str]) -> None:
        self.service = service
        self.nodes = list(nodes)
        transport = httpx.ASGITransport(app=create_app(service))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://extender")

    @property
    def cluster(self) -> EmbeddedCluster:
        """Behind the API: for what no user can do."""
        assert self.service.embedded is not None
        return self.service.embedded

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        # Every test ends with the invariants.
        self.service.decisions.ledger.check()

    async def post(self, path: str, body: Any) -> Any:
        response = await self.http.post(path, json=body)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def submit(self, pod: Json) -> Json:
        stored: Json = await self.post("/embedded/pods", pod)
        return stored

    async def filter(self, pod: Json, nodes: Sequence[str] | None = None) -> Json:
        names = self.nodes if nodes is None else list(nodes)
        answer: Json = await self.post("/scheduler/filter", {"Pod": pod, "Nodes": None, "NodeNames": names})
        return answer

    async def prioritize(self, pod: Json, nodes: Sequence[str] | None = None) -> dict[str, int]:
        names = self.nodes if nodes is None else list(nodes)
        answer = await self.post("/scheduler/prioritize", {"Pod": pod, "Nodes": None, "NodeNames": names})
        return {entry["Host"]: entry["Score"] for entry in answer}

    async def bind(self, pod: Json, node: str) -> str:
        metadata = pod["metadata"]
        body = {
            "PodName": metadata["name"],
            "PodNamespace": metadata["namespace"],
            "PodUID": metadata["uid"],
            "Node": node,
        }
        error: str = (await self.post("/scheduler/bind", body))["Error"]
        return error

    async def cycle(self, pod: Json, nodes: Sequence[str] | None = None) -> str | None:
        """filter and prioritize; the node that kube-scheduler would choose, or None."""
        passed = (await self.filter(pod, nodes))["NodeNames"]
        if len(passed) > 1:
            scores = await self.prioritize(pod, passed)
            return max(scores, key=scores.__getitem__)
        return str(passed[0]) if passed else None

    async def schedule(self, pod: Json, nodes: Sequence[str] | None = None) -> str | None:
        """Create the pod and take it through a whole cycle; its node, or None."""
        stored = await self.submit(pod)
        node = await self.cycle(stored, nodes)
        return node if node is not None and not await self.bind(stored, node) else None

    async def delete(self, pod: Json) -> int:
        metadata = pod["metadata"]
        path = f"/embedded/pods/{metadata['namespace']}/{metadata['name']}"
        return (await self.http.delete(path)).status_code

    async def get(self, path: str) -> Any:
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def inspect(self, node: str) -> Json:
        seen = await self.get("/inspect")
        found: Json = next(entry for entry in seen["nodes"] if entry["name"] == node)
        return found

    async def shares(self, node: str) -> list[list[int]]:
        """For each shared GPU of the node, the sizes of its shares."""
        gpus = (await self.inspect(node))["sharedGpus"]
        return sorted(sorted(share["memoryMiB"] for share in gpu["shares"]) for gpu in gpus)
