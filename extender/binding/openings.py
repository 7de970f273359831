"""Nodes on which reservation pods have failed open no GPU for a while, each time for twice as long.

Each process sees it for itself, by what its watch shows: the pods say why they go (``closed-because``).
"""

from collections.abc import Callable
from itertools import count
from typing import Final

from cachetools import LRUCache

from extender.core.backoff import Backoff
from extender.core.ledger import Ledger
from extender.core.values import Reservation

#: Calls something after so many seconds, as ``loop.call_later``.
Later = Callable[[float, Callable[[], None]], object]
#: Reservation pods whose outcome is remembered, so that each counts once.
REMEMBERED: Final = 10_000


class Openings:
    """How opening GPUs has gone on each node."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float], later: Later) -> None:
        self._ledger = ledger
        self._later = later
        self._backoff = Backoff(clock)
        self._judged: LRUCache[str, bool] = LRUCache(maxsize=REMEMBERED)
        self._bars = count()
        #: node → its latest bar
        self._latest: dict[str, int] = {}

    def saw(self, reservation: Reservation) -> None:
        """The watch shows this reservation pod, new or changed."""
        if reservation.id in self._judged:
            return
        if reservation.failure is not None:
            self._judged[reservation.id] = False
            self._bar(reservation.node)
        elif reservation.device is not None:
            self._judged[reservation.id] = True
            self._backoff.end(reservation.node)

    def _bar(self, node: str) -> None:
        bar = self._latest[node] = next(self._bars)
        self._ledger.bar(node, barred=True)
        self._later(self._backoff.failed(node, node), lambda: self._lift(node, bar))

    def _lift(self, node: str, bar: int) -> None:
        if self._latest.get(node) == bar:
            del self._latest[node]
            self._ledger.bar(node, barred=False)
