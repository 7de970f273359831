"""Entries of the node records that nobody answers for any more: their process is dead, or never heard an answer.

Only a fence tells whether such an entry's Binding may still land (docs/binding.md, "When an entry may be dropped").
Where the pod has left, its Binding may have landed before, and its processes may run for their grace period more.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from extender.binding.api import Pod
from extender.binding.fence import Fence
from extender.binding.notice import Kind, Notice, Tell
from extender.binding.records import NodeRecords
from extender.core.ages import Ages
from extender.core.errors import GpuExtenderError, NotFound
from extender.core.ledger import Ledger
from extender.core.podreader import node_of
from extender.core.recordreader import recorded_gpus, recorded_pods
from extender.core.values import PodOnNode

#: Seconds after which an entry's pod is looked for: a bind that goes well has ended by then.
LOOK_AFTER: Final = 2.0

#: Node, pod UID and try.
_Key = tuple[str, str, str]


class Orphans:
    """Drops entries by rule 3, ``age`` seconds after this process has first seen them: longer than a bind may take.

    Those of pods that have left are dropped a grace period after this process has first heard so.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        ledger: Ledger,
        *,
        records: NodeRecords,
        fence: Fence,
        observe: Callable[[Pod], None],
        tell: Tell,
        age: float,
        clock: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._fence = fence
        self._observe = observe
        self._tell = tell
        self._age = age
        self._clock = clock
        self._ages: Ages[_Key] = Ages()
        #: Entries whose pods were looked for, and since when those are known to have left that have.
        self._looked: set[_Key] = set()
        self._left: dict[_Key, float] = {}

    async def once(self) -> None:
        """Look at each entry whose pod is neither bound nor being bound by this process."""
        found: Mapping[_Key, PodOnNode] = {
            (node, entry.uid, entry.attempt or ""): entry
            for node in self._ledger.shared_nodes()
            for entry in self._ledger.recorded(node)
            if entry.shares and self._ledger.pod(entry.uid) is None and not self._ledger.is_gone(entry.uid)
        }
        ages = self._ages.see(found, self._clock())
        self._looked &= found.keys()
        self._left = {key: since for key, since in self._left.items() if key in found}
        for key, age in ages.items():
            with suppress(GpuExtenderError):  # Nobody knows: the entry stays, and the next pass asks again.
                await self._look(key, found[key], age)

    async def _look(self, key: _Key, entry: PodOnNode, age: float) -> None:
        left = self._left.get(key)
        if left is not None:
            if self._clock() - left >= entry.grace:
                self._ledger.release(entry.uid)
                await self._drop(entry)
        elif age >= self._age:
            try:
                await self._judge(entry)
            except NotFound:
                self._left[key] = self._clock()  # Not as the pass began: it may have waited for long.
        elif age >= LOOK_AFTER and key not in self._looked:
            self._looked.add(key)
            if await self._fence.is_gone(entry.namespace, entry.name, entry.uid):
                self._left[key] = self._clock()

    async def _judge(self, entry: PodOnNode) -> None:
        """Raises NotFound where the pod has left, another GpuExtenderError while nobody knows."""
        tried = (entry.uid, entry.attempt or "")
        record = await self._records.read(entry.node)
        if tried not in {(known.pod_uid, known.attempt) for known in record.entries()}:
            # The watch is late, or somebody has deleted the record: then no event will ever say so.
            self._ledger.put_record(entry.node, recorded_pods(entry.node, record), recorded_gpus(entry.node, record))
            return
        # From here on: the entry was read before the fence is sent, so its Binding carries an older version.
        pod = await self._fence.pod(entry.namespace, entry.name, entry.uid)
        if node_of(pod) is not None:
            self._observe(pod)
        else:
            await self._drop(entry)

    async def _drop(self, entry: PodOnNode) -> None:
        tried = (entry.uid, entry.attempt or "")
        await self._records.commit(entry.node, lambda record: record.without([tried]))
        who = ((entry.uid, entry.namespace, entry.name),)
        self._tell(Notice(Kind.ENTRY_DROPPED, entry.node, "a bind that never ended has given back its room", pods=who))
