"""Between an extender and the API server: a test holds a request on its way, and decides what becomes of it.

::

    async with Gate(plane) as gate:
        extender = await gate.start_extender(stage)
        held = gate.hold("POST", "/binding")
        await held.arrived(seconds=10)      # the extender waits for its answer
        held.let_go()                       # or held.lose(): it never reached the API server
        with gate.no_news():
            ...                             # the extender decides by what it saw before
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp import web

from tests.controlplane.cluster import ControlPlane
from tests.controlplane.stage import Served, Stage

# They belong to one connection, not to the request.
_HOP: Final = frozenset({"host", "connection", "transfer-encoding", "content-length", "keep-alive"})


class Held:
    """One request: the first that fits. It is on its way until the test says more, even when its sender gives up."""

    def __init__(self, method: str, path_end: str) -> None:
        self._method = method
        self._path_end = path_end
        self._taken = asyncio.Event()
        self._decided = asyncio.Event()
        self._lost = False
        self._answered = asyncio.Event()
        #: The API server's answer: its status.
        self.status = 0
        self.path = ""

    async def arrived(self, seconds: float) -> None:
        """Wait until it is here. Raises TimeoutError."""
        await asyncio.wait_for(self._taken.wait(), seconds)

    def let_go(self) -> None:
        """Now it goes on to the API server."""
        self._decided.set()

    def lose(self) -> None:
        """It never gets there, and its connection breaks."""
        self._lost = True
        self._decided.set()

    async def answered(self, seconds: float) -> int:
        """Wait until the API server has answered it; the status."""
        await asyncio.wait_for(self._answered.wait(), seconds)
        return self.status

    def takes(self, request: web.BaseRequest) -> bool:
        """Whether this is the one."""
        fits = request.method == self._method and request.path.endswith(self._path_end)
        return fits and not self._taken.is_set()

    async def keep(self, request: web.BaseRequest) -> None:
        """Hold it. Raises ConnectionResetError where the test wants it lost."""
        self.path = request.path
        self._taken.set()
        await self._decided.wait()
        if self._lost:
            raise ConnectionResetError

    def was_answered(self, status: int) -> None:
        """Called by the gate."""
        self.status = status
        self._answered.set()


class Gate:
    """An HTTP server that passes on everything, watches too, with the sender's own credentials."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._held: list[Held] = []
        self._news = asyncio.Event()
        self._news.set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        server = web.Server(self._pass_on)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for held in self._held:
            held.lose()
        await self._runner.cleanup()
        await self._session.close()
        await asyncio.sleep(0.05)

    async def start_extender(self, stage: Stage, name: str = "gated", **settings: Any) -> Served:
        """An extender that reaches the API server through here only."""
        return await asyncio.to_thread(partial(stage.start_extender, name, self.url, **settings))

    def hold(self, method: str, path_end: str) -> Held:
        """The next such request is held."""
        held = Held(method, path_end)
        self._held.append(held)
        return held

    @contextmanager
    def no_news(self) -> Iterator[None]:
        """Meanwhile watches are silent: whoever watches through here sees the past. All else is passed on."""
        self._news.clear()
        try:
            yield
        finally:
            self._news.set()

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        held = next((held for held in self._held if held.takes(request)), None)
        if held is not None:
            await held.keep(request)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
        url = self._plane.server + request.raw_path
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            if held is not None:
                held.was_answered(answer.status)
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP}
            passed = web.StreamResponse(status=answer.status, headers=kept)
            await passed.prepare(request)
            async for chunk in answer.content.iter_any():
                if "watch" in request.query:
                    await self._news.wait()
                await passed.write(chunk)
            await passed.write_eof()
            return passed
