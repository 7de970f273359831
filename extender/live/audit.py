"""Differences while the service runs: of what a change has cast doubt on, each is told once.

Looking through everything is for the start and for ``/check``: it takes seconds where there are 100,000 pods.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from extender.core.consistency import Difference, of_node, of_pod
from extender.core.ledger import Ledger
from extender.core.podreader import uid_of
from extender.core.values import PodOnNode
from extender.turns import in_turns

#: Seconds between two looks. What both show is no record that one watch has shown before another one showed the pod.
PAUSE: Final = 2.0

#: Kind, object, and where that is a pod its UID: another one of that name is another matter.
_Key = tuple[str, str, str]


class Teller(Protocol):
    """Who hears of it; ``Told`` is one."""

    def difference(self, found: Difference) -> None:
        """It is there to stay."""

    def doubt(self, pod: PodOnNode) -> None:
        """So it is with this pod."""


class Audit:
    """``find``: the pod of that namespace and name as the API shows it, or None."""

    def __init__(self, ledger: Ledger, find: Callable[[str, str], Mapping[str, Any] | None], teller: Teller) -> None:
        self._ledger = ledger
        self._find = find
        self._teller = teller
        self._before: set[_Key] = set()
        self._doubted_before: set[str] = set()
        #: Told, and not ended since.
        self._told: set[_Key] = set()
        #: Told at the start; many of them are nothing that ``once`` looks at.
        self._from_start: set[_Key] = set()

    def begin(self, found: Iterable[Difference]) -> None:
        """All that there is at the start."""
        for difference in found:
            self._teller.difference(difference)
            self._from_start.add(self._key(difference))

    async def once(self) -> None:
        """Tell what was there at the last look, too."""
        now: set[_Key] = set()
        async for difference in in_turns(self._look()):
            key = self._key(difference)
            now.add(key)
            if key in self._before and key not in self._told | self._from_start:
                self._teller.difference(difference)
                self._told.add(key)
        self._from_start -= self._before - now  # Ended: should it come again, it is new.
        self._before, self._told = now, self._told & now
        self._tell_pods()

    def _key(self, difference: Difference) -> _Key:
        namespace, _, name = difference.object.partition("/")
        return difference.kind, difference.object, uid_of(self._find(namespace, name) or {})

    def _look(self) -> Iterator[Difference]:
        for held in self._ledger.doubted():
            pod = self._find(held.namespace, held.name)
            if pod is not None:
                yield from of_pod(self._ledger, pod)
        for state in self._ledger.doubted_nodes():
            yield from of_node(self._ledger, state)

    def _tell_pods(self) -> None:
        doubted = {pod.uid: pod for pod in self._ledger.doubted()}
        for uid in doubted.keys() & self._doubted_before:
            self._teller.doubt(doubted[uid])
        self._doubted_before = set(doubted)
