"""An API to list and watch that follows a script, and a sink that remembers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from extender.cluster import Collection, Page, WatchEvent
from extender.core.errors import ApiError

Json = dict[str, Any]


def thing(name: str, version: int = 1, **more: Any) -> Json:
    """An object of any kind."""
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}, **more}


def event(kind: str, found: Json) -> WatchEvent:
    """A change; ADDED, MODIFIED, DELETED."""
    return WatchEvent(kind, found)


def bookmark(version: int) -> WatchEvent:
    """Nothing has changed up to here."""
    return WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


@dataclass
class Listed:
    """An answer to a list, in pages of two; ``error`` ends it before the last page."""

    items: list[Json] = field(default_factory=list)
    version: str = "10"
    error: ApiError | None = None


@dataclass
class Watched:
    """An answer to a watch: these events, then the error; the server's own end without one."""

    events: list[WatchEvent] = field(default_factory=list)
    error: ApiError | None = None


class Script:
    """A ``Source``. A watch after the end of the script never says anything; a list then is a mistake."""

    def __init__(self, *answers: Listed | Watched) -> None:
        self._answers = deque(answers)
        #: When, ``list`` or ``watch``, and from which version.
        self.asked: list[tuple[float, str, str | None]] = []

    async def list_all(self, collection: Collection) -> AsyncIterator[Page]:
        """See Source."""
        answer = self._next("list", None)
        assert isinstance(answer, Listed), f"a list was asked for where the script has {answer}"
        pages = [answer.items[i : i + 2] for i in range(0, len(answer.items), 2)] or [[]]
        for number, items in enumerate(pages, 1):
            if answer.error is not None and number == len(pages):
                raise answer.error
            await asyncio.sleep(0)
            yield Page(items, answer.version)

    async def watch(self, collection: Collection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """See Source."""
        answer = self._next("watch", resource_version)
        if answer is None:
            await asyncio.Event().wait()
        assert isinstance(answer, Watched), f"a watch was asked for where the script has {answer}"
        for found in answer.events:
            await asyncio.sleep(0)
            yield found
        if answer.error is not None:
            raise answer.error

    @property
    def calls(self) -> list[tuple[str, str | None]]:
        """What was asked for, without when."""
        return [(kind, version) for _, kind, version in self.asked]

    @property
    def pauses(self) -> list[float]:
        """Seconds between one question and the next."""
        times = [when for when, _, _ in self.asked]
        return [after - before for before, after in pairwise(times)]

    def _next(self, kind: str, version: str | None) -> Listed | Watched | None:
        self.asked.append((asyncio.get_running_loop().time(), kind, version))
        return self._answers.popleft() if self._answers else None


class Memory:
    """A ``Sink``. ``errors`` are raised by the next calls of ``replace``, one each."""

    def __init__(self, *errors: ApiError) -> None:
        self._errors = deque(errors)
        self.lists: list[list[str]] = []
        self.changes: list[tuple[str, str]] = []
        self.slimmed = 0

    def slim(self, found: Json) -> Json:
        """See Sink."""
        self.slimmed += 1
        return {**found, "slim": True}

    async def replace(self, items: list[Json]) -> None:
        """See Sink."""
        assert all(item["slim"] for item in items)
        if self._errors:
            raise self._errors.popleft()
        self.lists.append([item["metadata"]["name"] for item in items])

    def change(self, event: WatchEvent) -> None:
        """See Sink."""
        self.changes.append((event.type, event.object["metadata"]["name"]))
