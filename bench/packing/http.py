"""The same replay spoken to the service as kube-scheduler does: filter, prioritize, bind, on the embedded cluster."""

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import orjson
import uvicorn

from bench.packing.intree import InTree
from bench.packing.openb import Trace, TracePod
from bench.packing.replay import Placed
from extender import logs
from extender.app import create_app
from extender.config import Settings
from extender.service import embedded_service
from extender.snapshot import Snapshot


def replay_over_http(trace: Trace, strategy: str) -> Iterator[Placed]:
    """Every arrival in turn. The service learns at once instead of in the background, so that runs repeat."""
    intree = InTree(trace.nodes)
    with _service(trace, strategy) as port, closing(_Caller(port)) as caller:
        for index, pod in enumerate(trace.arrivals):
            uid = f"{index}-{pod.name}"
            node = _place(caller, uid, pod, intree.passing(pod))
            if node is not None:
                intree.take(pod, node)
            yield Placed(uid, pod, node)


def _place(caller: "_Caller", uid: str, pod: TracePod, passing: list[str]) -> str | None:
    if not passing:
        return None
    body = pod.build(uid)
    caller.call("POST", "/embedded/pods", body)
    found = caller.call("POST", "/scheduler/filter", {"Pod": body, "Nodes": None, "NodeNames": passing})
    names = found["NodeNames"]
    if not names:
        caller.call("DELETE", f"/embedded/pods/openb/{uid}")
        return None
    scores = caller.call("POST", "/scheduler/prioritize", {"Pod": body, "Nodes": None, "NodeNames": names})
    node: str = max(scores, key=lambda score: score["Score"])["Host"]
    binding = {"PodName": uid, "PodNamespace": "openb", "PodUID": uid, "Node": node}
    answer = caller.call("POST", "/scheduler/bind", binding)
    assert not answer["Error"], answer
    return node


class _Caller:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Raises AssertionError for anything but success."""
        content = None if body is None else orjson.dumps(body)
        self._connection.request(method, path, content, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status in (200, 201), answer[:200]
        return orjson.loads(answer)


@contextmanager
def _service(trace: Trace, strategy: str) -> Iterator[int]:
    logs.configure("error")
    snapshot = Snapshot(nodes=tuple(node.build() for node in trace.nodes))
    app = create_app(embedded_service(Settings.model_validate({"strategy": strategy}), snapshot))
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets this only on sockets that it creates; without it each answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=120))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
