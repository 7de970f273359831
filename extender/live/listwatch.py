"""List a collection, then watch it, for ever: what client-go calls a reflector.

::

            list complete                 410 Gone
    listing ────────────▶ watching ───────────────────▶ listing
       │  ▲                 │  ▲
       └──┘ back-off        └──┘ ended or broken: go on from the last version, after a back-off

A broken watch loses nothing: it goes on where it was. Only where the server no longer knows what changed since is the
list read anew, and compared.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

import structlog

from extender.cluster import Collection, Page, WatchEvent
from extender.core.errors import ApiError, Gone, NotFound
from extender.turns import in_turns

#: Seconds of the first pause after a failure; each further one is twice as long, up to the longest.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
#: Seconds until a collection that the API server does not serve is asked for again.
UNSERVED_PAUSE: Final = 300.0

BOOKMARK: Final = "BOOKMARK"
DELETED: Final = "DELETED"

Json = dict[str, Any]
log = structlog.get_logger()


class Source(Protocol):
    """What can be listed and watched; ``KubeCluster`` is one."""

    def list_all(self, collection: Collection) -> AsyncIterator[Page]:
        """Pages of one consistent list. Raises ApiError; Gone when it took too long."""

    def watch(self, collection: Collection, resource_version: str) -> AsyncIterator[WatchEvent]:
        """What changed since. Raises ApiError; Gone where the server no longer knows."""


class Sink(Protocol):
    """Who is told."""

    def slim(self, found: Json) -> Json:
        """What is kept of an object while its list is being read: a large list is never in memory as a whole."""

    async def replace(self, items: list[Json]) -> None:
        """The collection as a list shows it. Raises ApiError to have it listed again."""

    def change(self, event: WatchEvent) -> None:
        """One object is new, has changed or is gone."""


class ListWatch:
    """One collection. ``failed`` is told of each failure; a list is read inside ``reading``."""

    def __init__(  # noqa: PLR0913 - two of them have a default
        self,
        source: Source,
        collection: Collection,
        sink: Sink,
        *,
        sleep: Callable[[float], Awaitable[None]],
        failed: Callable[[], None] = lambda: None,
        reading: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._source = source
        self._collection = collection
        self._sink = sink
        self._sleep = sleep
        self._failed = failed
        self._reading = reading
        #: Where to go on watching; None: a list is due.
        self._version: str | None = None
        self._failures = 0
        self.in_step = asyncio.Event()
        #: Why the first list is not complete; None once it is.
        self.behind: str | None = f"the first list of {collection.noun} is not complete"

    async def run(self) -> None:
        """Keep the sink in step, for ever."""
        while True:
            pause = await self._once()
            if pause:
                await self._sleep(pause)

    async def _once(self) -> float:
        """List if that is due, and watch until it ends; seconds to wait before going on."""
        try:
            if self._version is None:
                with self._reading():
                    self._version = await self._list()
            return UNSERVED_PAUSE if self._version is None else await self._watch(self._version)
        except (Gone, NotFound) as error:
            self._version = None
            return self._after(error)
        except ApiError as error:
            return self._after(error)

    async def _list(self) -> str | None:
        """The version to watch from; None where this API server has no such collection."""
        items: list[Json] = []
        version: str | None = None
        try:
            async for page in self._source.list_all(self._collection):
                items += [self._sink.slim(item) async for item in in_turns(page.items)]
                version = page.resource_version
        except NotFound:
            if not self._collection.may_be_unserved:
                raise
            items, version = [], None
        await self._sink.replace(items)
        self.behind = None
        self.in_step.set()
        return version

    async def _watch(self, version: str) -> float:
        heard = False
        async for event in self._source.watch(self._collection, version):
            heard = True
            self._failures = 0
            self._version = event.resource_version or self._version
            if event.type != BOOKMARK:
                self._sink.change(event)
        # The server has ended it, as it does from time to time.
        return 0.0 if heard else FIRST_PAUSE

    def _after(self, error: ApiError) -> float:
        self._failed()
        if self.behind is not None:
            self.behind = f"the first list of {self._collection.noun} is not complete: {error}"
        log.warning("watch", collection=self._collection.noun, error=str(error))
        longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 16))
        self._failures += 1
        # Jitter: replicas that lost the same server must not come back in the same moment.
        return longest * random.uniform(0.5, 1.0)
