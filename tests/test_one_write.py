"""The listener's protocol: what leaves it, and in how many pieces."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from extender.one_write import OneWrite

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n"


class Transport(asyncio.Transport):
    """A connection as far as the protocol looks at it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed, "nothing is written on a closed connection"
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def answered(*requests: bytes) -> Transport:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    config = uvicorn.Config(app, log_config=None, access_log=False)
    config.load()
    protocol = OneWrite(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Transport()
    protocol.connection_made(transport)
    for request in requests:
        protocol.data_received(request)
        await asyncio.sleep(0.01)
    return transport


async def test_head_and_body_are_one_piece() -> None:
    transport = await answered(REQUEST % b"", REQUEST % b"")
    assert [(piece[:15], piece[-6:]) for piece in transport.sent] == [(b"HTTP/1.1 200 OK", b"\r\n\r\nok")] * 2
    assert not transport.closed


async def test_what_was_written_is_sent_before_the_end() -> None:
    transport = await answered(REQUEST % b"Connection: close\r\n")
    assert b"".join(transport.sent).endswith(b"\r\n\r\nok")
    assert transport.closed


async def test_requests_that_come_together_are_all_answered() -> None:
    transport = await answered((REQUEST % b"") * 3)
    assert b"".join(transport.sent).count(b"HTTP/1.1 200 OK") == 3
