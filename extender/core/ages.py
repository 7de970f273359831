"""For how long something has been so, as one process has seen it: no clock of another machine is believed."""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Ages(Generic[K]):
    """What is not seen any more is forgotten: it begins anew."""

    def __init__(self) -> None:
        self._since: dict[K, float] = {}

    def see(self, keys: Iterable[K], now: float) -> dict[K, float]:
        """Seconds since each was first seen, without a look at which it was missing."""
        self._since = {key: self._since.get(key, now) for key in keys}
        return {key: now - since for key, since in self._since.items()}
