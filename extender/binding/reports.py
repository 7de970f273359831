"""What devices tell of their memory, on nodes whose labels do not tell it: asked for, and kept on the Node.

A pod that waits for a share is the reason to ask: one GPU is reserved on such a node, as for a bind. What its
reservation pod reports makes the node usable; so does what other reservation pods there report, for the node's GPUs
may differ.
"""

from collections.abc import Callable, Iterable
from typing import Final

from extender.binding.api import KubeApi, Pod
from extender.binding.notice import Kind, Notice, Tell
from extender.binding.reservations import Reservations
from extender.binding.spares import may_open
from extender.core import names
from extender.core.backoff import Backoff
from extender.core.device_report import Problem
from extender.core.errors import ApiError, Busy, Refused
from extender.core.inventory import MEMORY_UNKNOWN, Reported, reported_memory
from extender.core.ledger import Ledger
from extender.core.requests import GpuRequest
from extender.core.values import NodeState, Reservation

#: Seconds until a node that has told nothing is asked again, and at most: meanwhile its GPUs are for whole-GPU pods.
FIRST: Final = 300.0
MOST: Final = 3600.0


class Reports:
    """``waiting``: pods that kube-scheduler could not place. ``at_once``: nodes that are asked at a time."""

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        api: KubeApi,
        ledger: Ledger,
        *,
        reservations: Reservations,
        observe: Callable[[Pod], None],
        tell: Tell,
        waiting: Callable[[], Iterable[Pod]],
        at_once: int,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._reservations = reservations
        self._observe = observe
        self._tell = tell
        self._waiting = waiting
        self._at_once = at_once
        self._asked = Backoff(clock, first=FIRST, most=MOST)
        #: Nodes on which nothing can be kept.
        self._said: set[str] = set()

    async def keep(self) -> None:
        """Write what is new onto the nodes that it is about."""
        for state in list(self._ledger.snapshot()):
            reported = state.inventory.reported
            if reported is not None and (told := self._told(state, reported)) is not None:
                try:
                    await self._write(state, told)
                except ApiError as error:  # The next pass tries again.
                    if isinstance(error, Refused) and not isinstance(error, Busy):
                        self._refused(state.name, error)

    def _refused(self, node: str, error: Refused) -> None:
        """As where the extender's rights are not the manifests': said once."""
        if node not in self._said:
            self._said.add(node)
            text = f"what the node's GPUs tell of their memory cannot be kept on it: {error}"
            self._tell(Notice(Kind.MEMORY_NOT_KEPT, node, text))

    async def ask(self) -> None:
        """Reserve a GPU on nodes that have told nothing yet. Raises ApiError."""
        silent = [state for state in self._ledger.snapshot() if _is_silent(state)]
        if not silent or not self._is_wanted():
            return
        under_way = sum(any(not r.ended for r in self._ledger.reservations(state.name)) for state in silent)
        for state in [state for state in silent if self._may_ask(state)][: max(0, self._at_once - under_way)]:
            await self._ask(state.name)

    async def _ask(self, node: str) -> None:
        # Until it has told something. A refusal counts too: the next pass must come to other nodes.
        self._asked.failed(node, node)
        pod = await self._reservations.search(node, "report")
        if pod is not None:
            self._observe(pod)
        else:
            self._asked.end(node)  # Nobody knows whether it was asked.

    def _is_wanted(self) -> bool:
        requests = (GpuRequest.from_pod(pod) for pod in self._waiting())
        return any(isinstance(request, GpuRequest) and request.share is not None for request in requests)

    def _may_ask(self, state: NodeState) -> bool:
        return may_open(state) and not self._asked.waits(state.name) and not self._ledger.reservations(state.name)

    def _told(self, state: NodeState, reported: Reported) -> dict[str, int] | None:
        """Device → MiB, if there is news."""
        present = [r for r in self._ledger.reservations(state.name) if not r.ended]
        told = dict(reported.mib)
        for found in present:
            if found.device and found.memory_mib and _is_of_now(found, state):
                told[found.device] = found.memory_mib
        asked = any(found.problem == Problem.MEMORY_UNKNOWN for found in present)
        return told if told != reported.mib or (asked and not reported.asked) else None

    async def _write(self, state: NodeState, told: dict[str, int]) -> None:
        value = reported_memory(state.node.boot_id or "", told)
        patch = {"metadata": {"uid": state.node.uid, "annotations": {names.REPORTED_MEMORY: value}}}
        await self._api.patch_node(state.name, patch)
        self._asked.end(state.name)
        self._said.discard(state.name)
        self._tell(Notice(Kind.MEMORY_REPORTED, state.name, "GPUs of the node have told their memory"))


def _is_silent(state: NodeState) -> bool:
    """Whether only a report can make the node take shares."""
    reported = state.inventory.reported
    return reported is not None and not reported.asked and state.inventory.share_refusal == MEMORY_UNKNOWN


def _is_of_now(reservation: Reservation, state: NodeState) -> bool:
    """Whether the report is of this boot, and the device still as it was then."""
    return reservation.boot_id == state.node.boot_id and reservation.problem is None
