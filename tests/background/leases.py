"""An API server's Leases, shared by several candidates, and connections that fail on command."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from extender.core.errors import Conflict, NotFound, Unavailable
from extender.elector import Elector, Terms

Json = dict[str, Any]
WHERE: Final = ("gpu-extender", "gpu-extender")
EPOCH: Final = datetime(2026, 11, 21, tzinfo=UTC)


class Leases:
    """One Lease, with versions."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self._version = 0

    def get(self) -> Json:
        if self.lease is None:
            raise NotFound("404")
        return copy.deepcopy(self.lease)

    def create(self, lease: Mapping[str, Any]) -> Json:
        if self.lease is not None:
            raise Conflict("exists")
        return self._store(lease)

    def put(self, lease: Mapping[str, Any]) -> Json:
        if lease["metadata"]["resourceVersion"] != self.get()["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        return self._store(lease)

    def _store(self, lease: Mapping[str, Any]) -> Json:
        self._version += 1
        self.lease = copy.deepcopy(dict(lease))
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        return self.get()


@dataclass
class Line:
    """One candidate's connection. ``fault`` says what happens to a request: its name, or None."""

    leases: Leases
    fault: Callable[[str], str | None] = lambda _method: None
    calls: list[str] = field(default_factory=list)
    late: list[Callable[[], Json]] = field(default_factory=list)

    async def get_lease(self, namespace: str, name: str) -> Json:
        assert (namespace, name) == WHERE
        return await self._call("get", self.leases.get)

    async def create_lease(self, lease: Mapping[str, Any]) -> Json:
        return await self._call("create", lambda: self.leases.create(lease))

    async def put_lease(self, lease: Mapping[str, Any]) -> Json:
        return await self._call("put", lambda: self.leases.put(lease))

    async def _call(self, method: str, request: Callable[[], Json]) -> Json:
        self.calls.append(method)
        fault = self.fault(method)
        await asyncio.sleep(5.0 if fault in ("never", "late") else 0.01)
        if fault == "late":
            self.late.append(request)
        if fault in ("never", "late"):
            raise Unavailable("no answer in time")
        if fault == "twice":
            request()  # The client repeats it on a new connection, and the second answer is what it gets.
        answer = request()
        await asyncio.sleep(0.01)
        if fault == "lost":
            raise Unavailable("broken connection")
        return answer


class Stage:
    """Candidates, and who works when."""

    def __init__(self, seed: int = 0, terms: Terms | None = None) -> None:
        self.leases = Leases()
        self.lines: dict[str, Line] = {}
        self.working: list[str] = []
        #: (when, who) for each beginning.
        self.begun: list[tuple[float, str]] = []
        self.worst = 0
        self.random = Random(seed)
        self._terms = terms or Terms()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.electors: dict[str, Elector] = {}

    def start(self, name: str, work: Callable[[], Awaitable[None]] | None = None) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        line = self.lines.setdefault(name, Line(self.leases))
        # Every machine has a wall clock of its own.
        wrong = timedelta(hours=self.random.randint(-100, 100))
        elector = Elector(
            line,
            *WHERE,
            name,
            clock=loop.time,
            now=lambda: EPOCH + wrong + timedelta(seconds=loop.time()),
            terms=self._terms,
        )
        self.electors[name] = elector
        self._tasks[name] = asyncio.create_task(elector.run(work or (lambda: self._work(name))))
        return self._tasks[name]

    async def stop(self, name: str) -> None:
        """A clean shutdown."""
        self._tasks[name].cancel()
        await asyncio.wait((self._tasks[name],))

    def cut(self, name: str, fault: str | None) -> None:
        """From now on every request of that candidate ends so."""
        self.lines[name].fault = lambda _method: fault

    @property
    def leaders(self) -> list[str]:
        return [name for name, elector in self.electors.items() if elector.is_leader]

    async def _work(self, name: str) -> None:
        self.working.append(name)
        self.begun.append((asyncio.get_running_loop().time(), name))
        self.worst = max(self.worst, len(self.working))
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)  # Work takes a moment to end.
            self.working.remove(name)
