"""An API server that shows a large cluster: pages of lists that look like a real one's, and watches that say nothing.

python -m bench.api_server PORT PODS NODES
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from bench.clusters import CARD_MIB, GPUS, node_name
from extender.core import names
from tests.builders import make_node, make_pod, stable_uid

Json = dict[str, Any]
Item = Callable[[int], bytes]

#: On each node one GPU is shared by so many pods; all other pods want no GPU.
SHARES: Final = 4
_NAME, _UID, _NODE, _DEVICE = b"@name@", b"@uid@", b"@node@", b"@device@"
VERSION: Final = "1000"
_MANAGED: Final[Json] = {"apiVersion": "v1", "operation": "Update", "time": "2026-09-14T08:30:00Z"}


def _as_shown(found: Json, managers: int) -> bytes:
    """With what the API server itself adds: half of a usual object."""
    fields: Json = {f"f:field-{number}": {f'k:{{"name":"{number}"}}': {".": {}, "f:name": {}}} for number in range(12)}
    entries = [{**_MANAGED, "manager": f"manager-{number}", "fieldsV1": fields} for number in range(managers)]
    return orjson.dumps({**found, "metadata": {**found["metadata"], "managedFields": entries}})


def _pod(name: str, namespace: str, annotations: dict[str, str], gpus: int = 0) -> bytes:
    """A usual pod: two containers with probes, variables and volumes."""
    pod = make_pod(name, namespace).uid(_UID.decode()).on_node(_NODE.decode()).build()
    container = {
        "name": "main",
        "image": "registry.example.com/team/service:2026.09.14",
        "args": [f"--option-{number}=value" for number in range(10)],
        "env": [{"name": f"VARIABLE_{number}", "value": "some value"} for number in range(15)],
        "volumeMounts": [{"name": f"v{number}", "mountPath": f"/mnt/{number}"} for number in range(4)],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}},
        "terminationMessagePath": "/dev/termination-log",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
    }
    if gpus:
        container["resources"] = {"limits": {names.GPU_RESOURCE: str(gpus)}, "requests": {names.GPU_RESOURCE: "1"}}
    pod["spec"] |= {
        "containers": [container, {**container, "name": "sidecar", "resources": {}}],
        "volumes": [{"name": f"v{number}", "configMap": {"name": f"settings-{number}"}} for number in range(4)],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "serviceAccountName": "default",
        "priority": 0,
    }
    pod["metadata"] |= {
        "annotations": annotations,
        "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "u"}],
    }
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    since = "2026-09-14T08:30:00Z"
    running = {
        "state": {"running": {"startedAt": since}},
        "ready": True,
        "restartCount": 0,
        "image": container["image"],
    }
    pod["status"] |= {
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": since} for kind in kinds],
        "containerStatuses": [
            {"name": name, **running, "imageID": "sha256:" + "0" * 64} for name in ("main", "sidecar")
        ],
        "podIPs": [{"ip": "10.0.0.2"}],
        "startTime": since,
    }
    return _as_shown(pod, 3)


_DEVICES: Final = {names.VISIBLE_DEVICES: _DEVICE.decode(), names.MEMORY_MIB: str(CARD_MIB // SHARES)}
_SHARE: Final = {names.GPU_FRACTION: "0.25", names.SHARED_GPUS: "share-" + _NODE.decode()} | _DEVICES
_REPORT: Final = {names.DEVICE: _DEVICE.decode(), names.DEVICE_MEMORY_MIB: str(CARD_MIB)}
_RESERVATION_POD: Final = _pod("share-" + _NODE.decode(), names.RESERVATION_NAMESPACE, _REPORT, gpus=1)
_SHARE_POD: Final = _pod(_NAME.decode(), "team", _SHARE)
_OTHER_POD: Final = _pod(_NAME.decode(), "team", {})


def pod(number: int, nodes: int) -> bytes:
    """Pod ``number``: the first on a node is a reservation pod, the next four have shares, all others no GPU."""
    turn, node = divmod(number, nodes)
    template = _RESERVATION_POD if turn == 0 else _SHARE_POD if turn <= SHARES else _OTHER_POD
    device = f"GPU-{node:08x}-0000-4000-8000-000000000000".encode()
    filled = template.replace(_NODE, node_name(node).encode()).replace(_DEVICE, device)
    return filled.replace(_NAME, b"pod-%d" % number).replace(_UID, stable_uid(str(number)).encode())


def node(number: int) -> bytes:
    """A node of eight H100 with the images of a usual one."""
    found = make_node(node_name(number)).gpus(GPUS, mib=CARD_MIB).build()
    found["status"]["images"] = [{"names": [f"registry.example.com/i-{i}@sha256:" + "0" * 64]} for i in range(50)]
    return _as_shown(found, 4)


class ApiServer:
    """HTTP/1.1 on a stream, no more of it than the extender's client needs."""

    def __init__(self, pods: int, nodes: int) -> None:
        lists: dict[str, tuple[int, Item]] = {
            "pods": (pods, lambda number: pod(number, nodes)),
            "nodes": (nodes, node),
        }
        self._lists = lists

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, target, _ = head.split(b" ", 2)
                length = head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]
                await reader.readexactly(int(length or 0))
                url = urlsplit(target.decode())
                query = dict(parse_qsl(url.query))
                if "watch" in query:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    await asyncio.sleep(3600)
                self._answer(writer, method, url.path.rpartition("/")[2], query)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, method: bytes, collection: str, query: dict[str, str]) -> None:
        if method == b"GET" and "limit" in query:
            status, body = b"200 OK", self.page(collection, int(query.get("continue", 0)), int(query["limit"]))
        elif method == b"POST":
            status, body = b"201 Created", b'{"metadata":{"name":"made","uid":"u","resourceVersion":"1"}}'
        else:
            status, body = b"404 Not Found", b'{"message":"not found"}'
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    def page(self, collection: str, start: int, limit: int) -> bytes:
        """The answer to a list."""
        total, item = self._lists.get(collection, (0, node))
        end = min(total, start + limit)
        following = f',"continue":"{end}"' if end < total else ""
        items = b",".join(map(item, range(start, end)))
        return f'{{"metadata":{{"resourceVersion":"{VERSION}"{following}}},"items":['.encode() + items + b"]}"


async def main() -> None:
    """Serve until killed."""
    port, pods, nodes = map(int, sys.argv[1:])
    server = await asyncio.start_server(ApiServer(pods, nodes).serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
