"""The ConfigMaps of the reservations' namespace: node records, and the owner of all reservation pods."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from extender.cluster import WatchEvent
from extender.core import names
from extender.core.errors import Conflict
from extender.core.podreader import namespaced_name, uid_of
from extender.core.reservation import OWNER
from extender.live.listwatch import DELETED
from extender.reflector import Reflector

ConfigMap = dict[str, Any]


class Records:
    """Sink of the watch.

    A record that is gone stays in the ledger as it was: what it said is room that somebody may be about to use. The
    next bind there makes it anew, after its fences.
    """

    def __init__(self, watcher: Reflector, create: Callable[[ConfigMap], Awaitable[ConfigMap]]) -> None:
        self._watcher = watcher
        self._create = create
        #: Name and UID; None while there is none.
        self.owner: tuple[str, str] | None = None

    def slim(self, found: ConfigMap) -> ConfigMap:
        """See Sink."""
        return found

    async def replace(self, items: list[ConfigMap]) -> None:
        """See Sink. The owner is part of the manifests; where it is missing it is made."""
        if all(namespaced_name(found)[1] != OWNER for found in items):
            with suppress(Conflict):  # Another replica was faster: the watch will show it.
                items = [*items, await self._create(_owner())]
        for found in items:
            self._put(found)

    def change(self, event: WatchEvent) -> None:
        """See Sink."""
        if event.type != DELETED:
            self._put(event.object)
        elif namespaced_name(event.object)[1] == OWNER:
            self.owner = None

    def _put(self, config_map: ConfigMap) -> None:
        if namespaced_name(config_map)[1] == OWNER:
            self.owner = (OWNER, uid_of(config_map))
        else:
            self._watcher.config_map(config_map)


def _owner() -> ConfigMap:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": OWNER, "namespace": names.RESERVATION_NAMESPACE},
    }
