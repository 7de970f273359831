"""Short-lived hints that a pod just prioritised will probably land on a node.

They close the window between filter of the next pod and bind of this one. Only filter and prioritize of *other* pods
look at them; bind never does. A claim ends with its pod's bind or deletion, at the latest after ``ttl`` seconds.
"""

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import NamedTuple

from extender.core.requests import GpuRequest


class Claim(NamedTuple):
    """A pod and the node that it will probably land on."""

    uid: str
    node: str
    request: GpuRequest


class Claims:
    """At most one claim per pod. ``touched`` is told each node whose claims change."""

    def __init__(
        self, ttl: float, timer: Callable[[], float], touched: Callable[[str], None], *, most: int = 100_000
    ) -> None:
        self._ttl = ttl
        self._timer = timer
        self._most = most
        #: pod UID → claim and the time of its end, in the order in which they end. Not a TTLCache: that drops what has
        #: ended in the middle of any call, and ``_by_node`` would keep it for ever.
        self._claims: dict[str, tuple[Claim, float]] = {}
        #: node → pod UID → claim, in the order in which they were made
        self._by_node: dict[str, dict[str, Claim]] = {}
        self._touched = touched

    def add(self, claim: Claim) -> None:
        """Replace the pod's claim."""
        self.end(claim.uid)
        if len(self._claims) >= self._most:
            self.end(next(iter(self._claims)))
        self._claims[claim.uid] = (claim, self._timer() + self._ttl)
        self._by_node.setdefault(claim.node, {})[claim.uid] = claim
        self._touched(claim.node)

    def end(self, uid: str) -> None:
        """The pod is bound or gone. Idempotent."""
        found = self._claims.pop(uid, None)
        if found is None:
            return
        node = found[0].node
        claims = self._by_node[node]
        del claims[uid]
        if not claims:
            del self._by_node[node]
        self._touched(node)

    def expire(self) -> list[Claim]:
        """Drop and return what is older than the time to live."""
        if not self._claims:
            return []
        now = self._timer()
        expired = [claim for claim, _ in takewhile(lambda held: held[1] <= now, self._claims.values())]
        for claim in expired:
            self.end(claim.uid)
        return expired

    def of(self, uid: str) -> Claim | None:
        """The pod's claim, or None."""
        found = self._claims.get(uid)
        return None if found is None else found[0]

    def on(self, node: str) -> Iterator[Claim]:
        """The node's claims, oldest first."""
        return iter(self._by_node.get(node, {}).values())

    def __len__(self) -> int:
        return len(self._claims)
