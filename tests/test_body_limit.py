"""Bodies above the limit: refused unread, the refusal is read by whoever sends everything first, nothing is kept."""

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from extender import body_limit
from extender.body_limit import BodyLimit
from tests.builders import make_node, make_pod
from tests.client import serve
from tests.conftest import Serving, Start

MIB = 1 << 20


@pytest.fixture(scope="module")
def small(start_anywhere: Callable[[ExitStack], Start], cluster_file: Path) -> Iterator[Serving]:
    """A service that takes 1 MiB."""
    with ExitStack() as stack:
        yield start_anywhere(stack)("--snapshot", str(cluster_file), "--max-body-mib", "1")


def padded(size: int) -> bytes:
    """A filter body of exactly that many bytes."""
    body = json.dumps({"Pod": make_pod("p").build(), "NodeNames": ["n"]}).encode()
    return body + b" " * (size - len(body))


def post(server: Serving, body: bytes | Iterable[bytes]) -> tuple[int, bytes]:
    """Sends everything, then reads."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", "/scheduler/filter", body, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def pieces(count: int, size: int = MIB) -> Iterator[bytes]:
    piece = b" " * size
    for _ in range(count):
        yield piece


def test_exactly_at_the_limit(small: Serving) -> None:
    status, answer = post(small, padded(MIB))
    assert (status, json.loads(answer)["NodeNames"]) == (200, ["n"])
    status, answer = post(small, iter([padded(MIB)[: MIB // 2], padded(MIB)[MIB // 2 :]]))
    assert (status, json.loads(answer)["NodeNames"]) == (200, ["n"])


@pytest.mark.parametrize("size", [MIB + 1, 10 * MIB])
@pytest.mark.parametrize("chunked", [False, True])
def test_above_the_limit(small: Serving, size: int, chunked: bool) -> None:
    body = padded(size)
    status, answer = post(small, (body[at : at + 65536] for at in range(0, size, 65536)) if chunked else body)
    assert (status, answer) == (413, b"the body is larger than 1 MiB (max-body-mib)\n")


def test_the_declared_length_is_believed_at_once(small: Serving) -> None:
    """Who waits for the answer before sending gets it, and no more of the body is asked for."""
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(b"POST /scheduler/filter HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_memory_stays_flat(small: Serving, chunked: bool) -> None:
    """A peer grew to 2.6 GB on a body of 300 MB."""
    post(small, b"{}")
    before = small.resident_mib()
    if chunked:
        status, _ = post(small, pieces(300))
    else:
        status = _declared(small, 300)
    assert status == 413
    assert small.resident_mib() - before < 20


def _declared(server: Serving, mib: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.putrequest("POST", "/scheduler/filter")
        connection.putheader("Content-Length", str(mib * MIB))
        connection.endheaders()
        for piece in pieces(mib):
            connection.send(piece)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_client_that_goes_away_leaves_no_trace(small: Serving) -> None:
    for head in (
        b"Content-Length: 5000\r\n\r\n{",
        b"Content-Length: 9999999\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
            connection.sendall(b"POST /scheduler/filter HTTP/1.1\r\nHost: x\r\n" + head)
    assert post(small, padded(2000))[0] == 200
    assert small.get("/inspect").json()["totals"]["pods"] == 0
    assert "Traceback" not in small.log()
    assert '"level":"error"' not in small.log()


async def test_ten_megabytes_are_accepted_by_default() -> None:
    async with serve(make_node("n").gpus(1).build()) as extender:
        response = await extender.http.post("/scheduler/filter", content=padded(10 * MIB))
        assert (response.status_code, response.json()["NodeNames"]) == (200, ["n"])
        response = await extender.http.post("/embedded/pods", content=b" " * (64 * MIB + 1))
        assert response.status_code == 413, "every path has the limit"


# --- the middleware alone ---------------------------------------------------------------------------------


class Wire:
    """One request's messages, in and out."""

    def __init__(self, *incoming: dict[str, Any], headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.incoming = list(incoming)
        self.scope = {"type": "http", "headers": list(headers)}
        self.sent: list[Any] = []
        self.reached: list[Any] = []

    async def receive(self) -> Any:
        if not self.incoming:
            await asyncio.Event().wait()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.reached.append(await receive())
        else:
            self.reached.append(scope["type"])

    async def run(self, most: int = 10) -> None:
        await BodyLimit(self.app, most)(self.scope, self.receive, self.send)


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_the_answer_is_sent_before_the_rest_is_read() -> None:
    wire = Wire(part(b"x"), part(b"y", more=False), headers=[(b"content-length", b"11")])
    taken_at_answer: list[int] = []

    async def send(message: Any) -> None:
        taken_at_answer.append(len(wire.incoming))
        wire.sent.append(message)

    await BodyLimit(wire.app, 10)(wire.scope, wire.receive, send)
    assert taken_at_answer == [2, 2, 0]
    assert wire.sent[0]["status"] == 413
    assert (b"connection", b"close") in wire.sent[0]["headers"]
    assert not wire.reached


async def test_a_client_that_never_ends_loses_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "PATIENCE", 0.02)
    wire = Wire(part(b"x" * 11))
    await asyncio.wait_for(wire.run(), 5)
    assert wire.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_what_is_within_the_limit_arrives_whole() -> None:
    wire = Wire(part(b"x" * 5), part(b"y" * 5, more=False))
    await wire.run()
    assert wire.reached == [part(b"x" * 5)]
    assert not wire.sent


async def test_a_client_that_disconnects_reaches_nothing() -> None:
    wire = Wire(part(b"x"), {"type": "http.disconnect"})
    await wire.run()
    assert (wire.sent, wire.reached) == ([], [])


async def test_other_protocols_pass() -> None:
    wire = Wire()
    wire.scope["type"] = "lifespan"
    await wire.run()
    assert wire.reached == ["lifespan"]
