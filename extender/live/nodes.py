"""The nodes of a cluster as last seen, with what ResourceSlices and ResourceClaims say of their devices."""

from collections.abc import Awaitable, Callable, Iterable, Set
from typing import Any

from extender.cluster import WatchEvent
from extender.core.fields import Json as Object
from extender.core.fields import child, text
from extender.core.inventory import group_slices
from extender.core.nodereader import read_nodes
from extender.live.claims import Claims, pool_of
from extender.live.listwatch import DELETED
from extender.reflector import Reflector
from extender.turns import in_turns

Json = dict[str, Any]


class Nodes:
    """Sink of three watches: a node is what all three say of it."""

    def __init__(self, watcher: Reflector, repaired: Callable[[str], None]) -> None:
        self._watcher = watcher
        #: name → Node object; always the same mapping, for others read it.
        self.objects: dict[str, Json] = {}
        #: node → name → ResourceSlice of a GPU driver
        self._slices: dict[str, dict[str, Object]] = {}
        self._claims = Claims()
        self.nodes = _Sink(self._replace_nodes, self._change_node)
        self.slices = _Sink(self._replace_slices, self._change_slice)
        self.claims = _Sink(self._replace_claims, self._change_claim)
        self._repaired = repaired
        self._listed = False

    # --- nodes --------------------------------------------------------------------------------------------

    async def _replace_nodes(self, items: list[Json]) -> None:
        before = dict(self.objects)
        self.objects.clear()
        self.objects.update((_name(node), node) for node in items)
        changed = [name for name, node in self.objects.items() if _version(before.get(name)) != _version(node)]
        gone = [name for name in before if name not in self.objects]
        if self._listed:
            for name in changed:
                self._repaired("changed" if name in before else "missed")
            for _ in gone:
                self._repaired("gone")
        self._listed = True
        await self._tell_all([*changed, *gone])

    def _change_node(self, event: WatchEvent) -> None:
        name = _name(event.object)
        if event.type == DELETED:
            self.objects.pop(name, None)
        else:
            self.objects[name] = _slim(event.object)
        self._tell(name)

    # --- devices ------------------------------------------------------------------------------------------

    async def _replace_slices(self, items: list[Json]) -> None:
        before = set(self._slices)
        self._slices = {node: {_name(found): found for found in own} for node, own in group_slices(items).items()}
        await self._tell_all(before | set(self._slices))

    def _change_slice(self, event: WatchEvent) -> None:
        for node in group_slices([event.object]):
            own = self._slices.setdefault(node, {})
            if event.type == DELETED:
                own.pop(_name(event.object), None)
            else:
                own[_name(event.object)] = _slim(event.object)
            if not own:
                del self._slices[node]
            self._tell(node)

    async def _replace_claims(self, items: list[Json]) -> None:
        await self._tell_all(self._with_pools(self._claims.replace(items)))

    def _change_claim(self, event: WatchEvent) -> None:
        change = self._claims.drop if event.type == DELETED else self._claims.put
        for name in self._with_pools(change(_slim(event.object))):
            self._tell(name)

    def _with_pools(self, pools: Set[str]) -> list[str]:
        """The nodes that have devices of these pools."""
        return [name for name, slices in self._slices.items() if not pools.isdisjoint(map(pool_of, slices.values()))]

    # --- telling ------------------------------------------------------------------------------------------

    async def _tell_all(self, names: Iterable[str]) -> None:
        async for name in in_turns(names):
            self._tell(name)

    def _tell(self, name: str) -> None:
        """Read this node anew, by itself: what others have does not matter to it."""
        slices = tuple(self._slices.get(name, {}).values())
        node = self.objects.get(name)
        if node is None and not slices:
            self._watcher.node_gone(name)
            return
        claims = self._claims.of(map(pool_of, slices))
        self._watcher.nodes(read_nodes([node] if node is not None else [], slices, claims))


class _Sink:
    """See ``listwatch.Sink``."""

    def __init__(self, replace: Callable[[list[Json]], Awaitable[None]], change: Callable[[WatchEvent], None]) -> None:
        self._replace = replace
        self._change = change

    async def replace(self, items: list[Json]) -> None:
        """See Sink."""
        await self._replace(items)

    def change(self, event: WatchEvent) -> None:
        """See Sink."""
        self._change(event)

    def slim(self, found: Json) -> Json:
        """See Sink."""
        return _slim(found)


def _slim(found: Json) -> Json:
    """Without who wrote which field and, of a node, the names of all images: most of its size."""
    kept = dict(found)
    kept["metadata"] = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    if "images" in child(found, "status"):
        kept["status"] = {key: value for key, value in found["status"].items() if key != "images"}
    return kept


def _name(found: Object) -> str:
    return text(child(found, "metadata"), "name") or ""


def _version(found: Json | None) -> str | None:
    return text(child(found, "metadata"), "resourceVersion") if found is not None else None
