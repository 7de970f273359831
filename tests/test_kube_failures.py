"""Whatever an API server or the network does, an ``ApiError`` comes of it: the client's errors never leave."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extender.cluster import Collection, KubeCluster
from extender.core.errors import ApiError, Busy, Conflict, Gone, NotFound, Refused, Unavailable
from extender.kube import Limits

OBJECT = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"}}
BINDING = OBJECT | {"target": {"kind": "Node", "name": "node"}}
Call = Callable[[KubeCluster], Awaitable[object]]


async def drain(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        pass


CALLS: dict[str, Call] = {
    "get_pod": lambda cluster: cluster.get_pod("n", "p"),
    "create_pod": lambda cluster: cluster.create_pod(OBJECT),
    "delete_pod": lambda cluster: cluster.delete_pod("n", "p", "u", 2),
    "bind_pod": lambda cluster: cluster.bind_pod(BINDING),
    "patch_pod": lambda cluster: cluster.patch_pod("n", "p", OBJECT),
    "patch_node": lambda cluster: cluster.patch_node("node", OBJECT),
    "get_config_map": lambda cluster: cluster.get_config_map("n", "p"),
    "create_config_map": lambda cluster: cluster.create_config_map(OBJECT),
    "put_config_map": lambda cluster: cluster.put_config_map(OBJECT),
    "get_lease": lambda cluster: cluster.get_lease("n", "p"),
    "create_lease": lambda cluster: cluster.create_lease(OBJECT),
    "put_lease": lambda cluster: cluster.put_lease(OBJECT),
    "create_event": lambda cluster: cluster.create_event(OBJECT),
    "list_pods": lambda cluster: cluster.list_pods("node"),
    "list_all": lambda cluster: drain(cluster.list_all(Collection.PODS)),
    "watch": lambda cluster: drain(cluster.watch(Collection.PODS, "1")),
}
# What these calls want to know is in the status line.
NO_CONTENT = {"delete_pod", "bind_pod", "create_event"}
KINDS: dict[int, type[ApiError]] = {
    **dict.fromkeys((400, 401, 403, 422), Refused),
    429: Busy,
    **dict.fromkeys((408, 500, 502, 503, 504), Unavailable),
    404: NotFound,
    409: Conflict,
    410: Gone,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@dataclass
class Server:
    """Answers each request with the same bytes, then resets, closes or waits."""

    answer: bytes = b""
    reset: bool = False
    hang: bool = False
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
            if self.hang:
                await asyncio.sleep(60)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client has gone, or the test is over.
        finally:
            if self.reset:
                writer.transport.abort()
            writer.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    scripted = Server()
    listener = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.port = listener.sockets[0].getsockname()[1]
    yield scripted
    listener.close()


@pytest.fixture
async def cluster(server: Server, tmp_path: Path) -> AsyncIterator[KubeCluster]:
    cluster = await connect(server.port, tmp_path)
    yield cluster
    await cluster.close()


async def connect(port: int, folder: Path) -> KubeCluster:
    config: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = folder / "config"
    path.write_text(json.dumps(config))
    return await KubeCluster.connect(path, Limits(request=0.2, page=0.2, silence=0.2))


@every_call
async def test_connection_refused(call: Call, tmp_path: Path) -> None:
    cluster = await connect(1, tmp_path)
    with pytest.raises(Unavailable):
        await call(cluster)
    await cluster.close()


@every_call
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", http("200 OK", b'{"metadata":')[:-4]])
@pytest.mark.parametrize("reset", [True, False])
async def test_the_connection_ends_too_early(
    call: Call, server: Server, cluster: KubeCluster, answer: bytes, reset: bool
) -> None:
    server.answer, server.reset = answer, reset
    with pytest.raises(Unavailable):
        await call(cluster)


@every_call
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"])
async def test_no_answer_in_time(call: Call, server: Server, cluster: KubeCluster, answer: bytes) -> None:
    server.answer, server.hang = answer, True
    with pytest.raises(Unavailable):
        async with asyncio.timeout(3):
            await call(cluster)


@every_call
async def test_each_status_is_one_of_our_errors(call: Call, server: Server, cluster: KubeCluster) -> None:
    for status, kind in KINDS.items():
        server.answer = http(f"{status} Reason", json.dumps({"kind": "Status", "message": "because"}).encode())
        with pytest.raises(ApiError, match=f"{status}: because") as raised:
            await call(cluster)
        assert raised.type is kind, status


@every_call
async def test_an_error_needs_no_readable_body(call: Call, server: Server, cluster: KubeCluster) -> None:
    for body in (b"", b"<html>", b"[]", b"\xff", b'{"message": 5}', b'"text"'):
        server.answer = http("404 Not Found", body)
        with pytest.raises(NotFound):
            await call(cluster)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in NO_CONTENT])
async def test_success_with_junk_is_no_success(name: str, server: Server, cluster: KubeCluster) -> None:
    for body in (b"<html>", b"[]", b"\xff", b"null", b"{}", b'{"metadata": 5}', b'{"items": 5}'):
        server.answer = http("200 OK", body)
        with pytest.raises(Unavailable):
            await CALLS[name](cluster)


@pytest.mark.parametrize("name", sorted(NO_CONTENT))
async def test_the_status_alone_says_that_it_was_done(name: str, server: Server, cluster: KubeCluster) -> None:
    server.answer = http("201 Created", b'{"kind": "Status"}')
    await CALLS[name](cluster)


@every_call
async def test_a_redirect_into_nowhere(call: Call, server: Server, cluster: KubeCluster) -> None:
    server.answer = http("302 Found", b"", "Location: http://[broken")
    with pytest.raises(Unavailable):
        await call(cluster)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}', Gone),
        (b'{"type": "ERROR", "object": {"kind": "Status", "code": 500}}', Unavailable),
        (b'{"type": "ERROR", "object": {}}', Unavailable),
        (b'{"type": "ADDED", "object": {}}', Unavailable),
        (b'{"type": "ADDED"}', Unavailable),
        (b'{"type": "ADDED", "object": {"metadata"', Unavailable),
    ],
)
async def test_errors_inside_a_watch(server: Server, cluster: KubeCluster, line: bytes, kind: type[ApiError]) -> None:
    good = b'{"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "7"}}}\n'
    server.answer = http("200 OK", good + line + b"\n")
    events = cluster.watch(Collection.PODS, "1")
    first = await anext(events)
    assert (first.type, first.resource_version) == ("MODIFIED", "7")
    with pytest.raises(ApiError) as raised:
        await anext(events)
    assert raised.type is kind


async def test_a_line_longer_than_any_buffer(server: Server, cluster: KubeCluster) -> None:
    server.answer = http("200 OK", b"x" * 10_000_000)
    with pytest.raises(Unavailable):
        await drain(cluster.watch(Collection.PODS, "1"))


async def test_a_list_never_reads_from_the_cache_and_goes_on_from_its_cursor(
    server: Server, cluster: KubeCluster
) -> None:
    page = {"metadata": {"resourceVersion": "5", "continue": "a/b=&c"}, "items": []}
    server.answer = http("200 OK", json.dumps(page).encode())
    pages = cluster.list_all(Collection.PODS)
    await anext(pages)
    server.answer = http("410 Gone", b"")
    with pytest.raises(Gone):
        await anext(pages)
    first, second = (request.split(b"\r\n")[0] for request in server.requests)
    assert first == b"GET /api/v1/pods?limit=500 HTTP/1.1"
    assert second == b"GET /api/v1/pods?limit=500&continue=a/b%3D%26c HTTP/1.1"
    assert b"authorization: bearer secret" in server.requests[0].lower()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(status=st.integers(100, 999), body=st.binary(max_size=80), name=st.sampled_from(sorted(CALLS)))
async def test_nothing_but_api_errors_ever_leaves(
    server: Server, cluster: KubeCluster, status: int, body: bytes, name: str
) -> None:
    server.answer = http(f"{status} S", body)
    with suppress(ApiError):
        await CALLS[name](cluster)
