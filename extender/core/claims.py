"""Short-lived hints that a pod just prioritised will probably land on a node.

They close the window between filter of the next pod and bind of this one. Only filter and prioritize of *other* pods
look at them; bind never does. A claim ends with its pod's bind or deletion, at the latest after ``ttl`` seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cachetools import TTLCache

from extender.core.requests import GpuRequest


@dataclass(frozen=True, slots=True)
class Claim:
    """A pod and the node that it will probably land on."""

    uid: str
    node: str
    request: GpuRequest


class Claims:
    """At most one claim per pod. ``touched`` is told each node whose claims change."""

    def __init__(
        self, ttl: float, timer: Callable[[], float], touched: Callable[[str], None], *, most: int = 100_000
    ) -> None:
        self._claims: TTLCache[str, Claim] = TTLCache(maxsize=most, ttl=ttl, timer=timer)
        #: node → pod UID → claim, in the order in which they were made
        self._by_node: dict[str, dict[str, Claim]] = {}
        self._touched = touched

    def add(self, claim: Claim) -> None:
        """Replace the pod's claim."""
        self.expire()
        self.end(claim.uid)
        while len(self._claims) >= self._claims.maxsize:
            self._unlink(self._claims.popitem()[1])
        self._claims[claim.uid] = claim
        self._by_node.setdefault(claim.node, {})[claim.uid] = claim
        self._touched(claim.node)

    def end(self, uid: str) -> None:
        """The pod is bound or gone. Idempotent."""
        if uid in self._claims:  # Quicker than to take out what is not there: most ends find nothing.
            self._unlink(self._claims.pop(uid))

    def expire(self) -> list[Claim]:
        """Drop and return what is older than the time to live."""
        expired = [claim for _, claim in self._claims.expire()]
        for claim in expired:
            self._unlink(claim)
        return expired

    def of(self, uid: str) -> Claim | None:
        """The pod's claim, or None."""
        return self._claims.get(uid)

    def on(self, node: str) -> Iterator[Claim]:
        """The node's claims, oldest first."""
        return iter(self._by_node.get(node, {}).values())

    def __len__(self) -> int:
        return len(self._claims)

    def _unlink(self, claim: Claim) -> None:
        claims = self._by_node.get(claim.node)
        if claims is not None and claims.pop(claim.uid, None) is not None:
            if not claims:
                del self._by_node[claim.node]
            self._touched(claim.node)
