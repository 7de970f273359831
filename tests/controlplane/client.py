"""A plain client of the API server for tests: it shares no code with what is tested."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.users import ADMIN, User

Json = dict[str, Any]
PODS = "/api/v1/pods"
NODES = "/api/v1/nodes"


class Answer(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Client:
    """JSON in, JSON out. Raises Answer for what is no success, aiohttp's errors for what is no answer."""

    def __init__(self, plane: ControlPlane, user: User = ADMIN, seconds: float = 60.0) -> None:
        connector = aiohttp.TCPConnector(ssl=False, limit=64)
        self._session = aiohttp.ClientSession(
            plane.server,
            connector=connector,
            headers={"Authorization": f"Bearer {user.token}"},
            timeout=aiohttp.ClientTimeout(total=seconds),
            read_bufsize=2**21,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        # Transports end a few turns of the loop later, those of requests that were cancelled while connecting too.
        await asyncio.sleep(0.25)

    async def get(self, path: str) -> Json:
        """GET."""
        return await self.send("GET", path)

    async def post(self, path: str, body: Mapping[str, Any]) -> Json:
        """POST."""
        return await self.send("POST", path, body)

    async def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """Merge-patch."""
        return await self.send("PATCH", path, body, "application/merge-patch+json")

    async def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """DELETE, with DeleteOptions where given."""
        return await self.send("DELETE", path, body)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> Json:
        """Any request."""
        return dict(json.loads(await self.text(path, method, body, content)))

    async def text(
        self, path: str, method: str = "GET", body: Mapping[str, Any] | None = None, content: str = "application/json"
    ) -> str:
        """Any request, the answer as it is."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, path, data=data, headers={"Content-Type": content}) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise Answer(answer.status, text)
            return text

    async def watch(self, path: str, version: str) -> AsyncIterator[tuple[str, Json]]:
        """Type and object of each change after that version, until the server ends it."""
        query = {"watch": "true", "resourceVersion": version}
        unlimited = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path, params=query, timeout=unlimited) as answer:
            if answer.status != 200:
                raise Answer(answer.status, await answer.text())
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Answer(int(event["object"].get("code", 500)), str(event["object"].get("message")))
                yield event["type"], event["object"]

    # --- objects that tests make --------------------------------------------------------------------------

    async def create_node(self, node: Mapping[str, Any]) -> Json:
        """Node and status; the API server sets UID and version."""
        metadata = {key: value for key, value in node["metadata"].items() if key not in ("uid", "resourceVersion")}
        await self.post(NODES, {**node, "metadata": metadata})
        return await self.patch(f"{NODES}/{metadata['name']}/status", {"status": node["status"]})

    async def create_pod(self, pod: Mapping[str, Any]) -> Json:
        """A pod of the builders, as a user creates it."""
        kept = {key: pod["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
        body = {key: value for key, value in pod.items() if key != "status"} | {"metadata": kept}
        return await self.post(f"/api/v1/namespaces/{kept['namespace']}/pods", body)

    async def bind(self, pod: Mapping[str, Any], node: str, annotations: Mapping[str, str] | None = None) -> None:
        """What kube-scheduler or an extender does."""
        metadata = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "annotations": annotations or {}}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        await self.post(f"{path_of(pod)}/binding", body)


def path_of(pod: Mapping[str, Any]) -> str:
    """The path of a pod."""
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
