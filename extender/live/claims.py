"""ResourceClaims by the pools whose devices they were given: a change concerns the nodes of those pools only."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Any

from extender.core.fields import child, children, text
from extender.core.podreader import namespaced_name

Json = dict[str, Any]
Key = tuple[str, str]
Pools = frozenset[str]


class Claims:
    """As last seen. What changes them returns the pools that it concerns."""

    def __init__(self) -> None:
        self._pools: dict[Key, Pools] = {}
        self._by_pool: defaultdict[str, dict[Key, Json]] = defaultdict(dict)

    def replace(self, claims: Iterable[Json]) -> Set[str]:
        """These and no others."""
        concerned = set(self._by_pool)
        self._pools.clear()
        self._by_pool.clear()
        for claim in claims:
            concerned |= self.put(claim)
        return concerned

    def put(self, claim: Json) -> Set[str]:
        """New or changed."""
        key, pools = namespaced_name(claim), _pools(claim)
        concerned = pools | self.drop(claim)
        if pools:
            self._pools[key] = pools
        for pool in pools:
            self._by_pool[pool][key] = claim
        return concerned

    def drop(self, claim: Json) -> Set[str]:
        """Gone; idempotent."""
        key = namespaced_name(claim)
        pools = self._pools.pop(key, Pools())
        for pool in pools:
            del self._by_pool[pool][key]
            if not self._by_pool[pool]:
                del self._by_pool[pool]
        return pools

    def of(self, pools: Iterable[str]) -> tuple[Json, ...]:
        """Those that hold something in any of these pools, each once."""
        found = {key: claim for pool in pools for key, claim in self._by_pool.get(pool, {}).items()}
        return tuple(found.values())


def pool_of(resource_slice: Mapping[str, Any]) -> str:
    """The pool that a ResourceSlice is a part of."""
    return text(child(resource_slice, "spec", "pool"), "name") or ""


def _pools(claim: Json) -> Pools:
    results = children(child(claim, "status", "allocation", "devices"), "results")
    return Pools(text(result, "pool") or "" for result in results)
