"""The nodes of a cluster as last seen, with what ResourceSlices and ResourceClaims say of their devices."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from extender.cluster import WatchEvent
from extender.core.fields import child, text
from extender.core.nodereader import read_nodes
from extender.core.podreader import namespaced_name
from extender.live.listwatch import DELETED
from extender.reflector import Reflector

Json = dict[str, Any]


class Nodes:
    """Sink of three watches: a node is what all three say of it."""

    def __init__(self, watcher: Reflector, repaired: Callable[[str], None]) -> None:
        self._watcher = watcher
        #: name → Node object
        self.objects: dict[str, Json] = {}
        #: node → name → ResourceSlice
        self._slices: dict[str, dict[str, Json]] = defaultdict(dict)
        #: (namespace, name) → ResourceClaim
        self._claims: dict[tuple[str, str], Json] = {}
        self.nodes = _Sink(self._replace_nodes, self._change_node)
        self.slices = _Sink(self._replace_slices, self._change_slice)
        self.claims = _Sink(self._replace_claims, self._change_claim)
        self._repaired = repaired
        self._listed = False

    # --- nodes --------------------------------------------------------------------------------------------

    def _replace_nodes(self, items: list[Json]) -> None:
        before = self.objects
        self.objects = {_name(node): _slim(node) for node in items}
        changed = [name for name, node in self.objects.items() if _version(before.get(name)) != _version(node)]
        gone = [name for name in before if name not in self.objects]
        if self._listed:
            for name in changed:
                self._repaired("changed" if name in before else "missed")
            for _ in gone:
                self._repaired("gone")
        self._listed = True
        self._tell([*changed, *gone])

    def _change_node(self, event: WatchEvent) -> None:
        name = _name(event.object)
        if event.type == DELETED:
            self.objects.pop(name, None)
        else:
            self.objects[name] = _slim(event.object)
        self._tell([name])

    # --- devices ------------------------------------------------------------------------------------------

    def _replace_slices(self, items: list[Json]) -> None:
        before = set(self._slices)
        self._slices.clear()
        for found in items:
            self._slices[_node_of(found)][_name(found)] = found
        self._tell(before | set(self._slices))

    def _change_slice(self, event: WatchEvent) -> None:
        node, name = _node_of(event.object), _name(event.object)
        if event.type == DELETED:
            self._slices[node].pop(name, None)
            if not self._slices[node]:
                del self._slices[node]
        else:
            self._slices[node][name] = event.object
        self._tell([node])

    def _replace_claims(self, items: list[Json]) -> None:
        self._claims = {namespaced_name(claim): claim for claim in items}
        self._tell(list(self._slices))

    def _change_claim(self, event: WatchEvent) -> None:
        key = namespaced_name(event.object)
        if event.type == DELETED:
            self._claims.pop(key, None)
        else:
            self._claims[key] = event.object
        self._tell(list(self._slices))

    def _tell(self, names: Iterable[str]) -> None:
        """Read these nodes anew, each by itself: what others have does not matter to it."""
        claims = tuple(self._claims.values())
        for name in filter(None, names):
            slices = tuple(self._slices.get(name, {}).values())
            node = self.objects.get(name)
            if node is None and not slices:
                self._watcher.node_gone(name)
            else:
                self._watcher.nodes(read_nodes([node] if node is not None else [], slices, claims if slices else ()))


class _Sink:
    """See ``listwatch.Sink``."""

    def __init__(self, replace: Callable[[list[Json]], None], change: Callable[[WatchEvent], None]) -> None:
        self._replace = replace
        self.change = change

    async def replace(self, items: list[Json]) -> None:
        """See Sink."""
        self._replace(items)


def _slim(node: Json) -> Json:
    """Without the names of all images and of who wrote which field: most of a Node's size."""
    metadata = {key: value for key, value in node["metadata"].items() if key != "managedFields"}
    status = {key: value for key, value in child(node, "status").items() if key != "images"}
    return {**node, "metadata": metadata, "status": status}


def _name(found: Json) -> str:
    return text(child(found, "metadata"), "name") or ""


def _node_of(found: Json) -> str:
    return text(child(found, "spec"), "nodeName") or ""


def _version(found: Json | None) -> str | None:
    return text(child(found, "metadata"), "resourceVersion") if found is not None else None
