"""Entries of the node records that nobody answers for any more: their process is dead, or never heard an answer.

Only a fence tells whether such an entry's Binding may still land (docs/binding.md, "When an entry may be dropped").
"""

from collections.abc import Callable

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


class Orphans:
    """Drops entries by rule 3, ``age`` seconds after this process has first seen them: longer than a bind may take."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        ledger: Ledger,
        *,
        records: NodeRecords,
        fence: Fence,
        observe: Callable[[Pod], None],
        tell: Tell,
        age: float,
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._fence = fence
        self._observe = observe
        self._tell = tell
        self._age = age
        #: By node, pod UID and try.
        self._ages: Ages[tuple[str, str, str]] = Ages()

    async def once(self, now: float) -> None:
        """Look at each entry whose pod is neither bound nor being bound by this process."""
        found = {
            (node, entry.uid, entry.attempt or ""): entry
            for node in self._ledger.shared_nodes()
            for entry in self._ledger.recorded(node)
            if entry.shares and self._ledger.pod(entry.uid) is None and not self._ledger.is_gone(entry.uid)
        }
        for key, age in self._ages.see(found, now).items():
            if age >= self._age:
                try:
                    await self._judge(found[key])
                except GpuExtenderError:
                    continue  # Nobody knows: the entry stays, and the next pass asks again.

    async def _judge(self, entry: PodOnNode) -> None:
        """Raises GpuExtenderError while nobody knows."""
        tried = (entry.uid, entry.attempt or "")
        record = await self._records.read(entry.node)
        if tried not in {(known.pod_uid, known.attempt) for known in record.entries()}:
            # The watch is late, or somebody has deleted the record: then no event will ever say so.
            self._ledger.put_record(entry.node, recorded_pods(entry.node, record), recorded_gpus(entry.node, record))
            return
        # From here on: the entry was read before the fence is sent, so its Binding carries an older version.
        try:
            pod = await self._fence.pod(entry.namespace, entry.name, entry.uid)
        except NotFound:
            self._ledger.release(entry.uid)
        else:
            if node_of(pod) is not None:
                self._observe(pod)
                return
        await self._records.commit(entry.node, lambda record: record.without([tried]))
        who = ((entry.uid, entry.namespace, entry.name),)
        self._tell(Notice(Kind.ENTRY_DROPPED, entry.node, "a bind that never ended has given back its room", pods=who))
