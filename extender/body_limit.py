"""A limit on request bodies that no client can get around or be hurt by.

A body above the limit is never held in memory. The answer is 413, and what the client still sends is thrown
away as it comes: closing the connection at once would reset it before the client has read the answer.
"""

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: How long, in seconds, a client that was refused may go on sending.
PATIENCE: Final = 60.0


class BodyLimit:
    """ASGI middleware: 413 for a request body above ``most`` bytes, declared or counted."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > self._most:
            await self._refuse(receive, send)
            return
        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # Nobody is left to answer.
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            if size > self._most:
                await self._refuse(receive if more else None, send)
                return
            messages.append(message)
        await self._app(scope, _replay(messages, receive), send)

    async def _refuse(self, rest: Receive | None, send: Send) -> None:
        text = f"the body is larger than {self._most >> 20} MiB (max-body-mib)\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(text)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": text, "more_body": True})
        try:
            async with asyncio.timeout(PATIENCE):
                while rest is not None and (await rest()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _declared(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _replay(messages: list[Message], receive: Receive) -> Receive:
    waiting = iter(messages)

    async def replay() -> Message:
        message = next(waiting, None)
        return message if message is not None else await receive()

    return replay
