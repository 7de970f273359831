"""Binding a share: choose, open, record, Binding (docs/binding.md).

What may go wrong at each step is in that page. Two rules carry the rest: an entry in the node record is written before
the Binding is sent, so room that may be in use is always written down; and it is dropped only when no Binding that it
was for can land any more.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final

from extender.binding.account import assume, confirm, give_back
from extender.binding.api import KubeApi, Pod
from extender.binding.evidence import LedgerEvidence
from extender.binding.fence import Fence
from extender.binding.outcome import BindFailed, OutcomeUnknown, StillOpening, failure_of
from extender.binding.records import NodeRecords, RecordRefused
from extender.binding.reservations import Reservations
from extender.core import names
from extender.core.decisions import Decisions
from extender.core.enforcement import PlacedDevice, limit_annotations
from extender.core.errors import ApiError, Conflict, GpuExtenderError, LedgerError, NotFound, Refused
from extender.core.fields import child
from extender.core.podreader import (
    annotations_of,
    grace_of,
    namespaced_name,
    node_of,
    placement_annotations,
    uid_of,
)
from extender.core.record import Entry, NodeRecord
from extender.core.requests import GpuRequest
from extender.core.values import PodOnNode, ShareState

#: The first try and at most two more.
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class _Try:
    """One attempt of this process to bind one pod."""

    pod: Pod
    node: str
    request: GpuRequest
    held: PodOnNode
    name: str

    @property
    def uid(self) -> str:
        return self.held.uid


class ShareBinding:
    """The protocol, for one process."""

    def __init__(  # noqa: PLR0913 - the parts that the protocol joins
        self,
        api: KubeApi,
        decisions: Decisions,
        *,
        reservations: Reservations,
        records: NodeRecords,
        evidence: LedgerEvidence,
        fence: Fence,
        process: str,
        bind_timeout: float,
        observe: Callable[[Pod], None],
    ) -> None:
        self._api = api
        self._decisions = decisions
        self._ledger = decisions.ledger
        self._reservations = reservations
        self._records = records
        self._evidence = evidence
        self._fence = fence
        self._process = process
        self._bind_timeout = bind_timeout
        #: Tells the ledger what an answer of the API has shown, before the watch does.
        self._observe = observe
        self._numbers = count(1)
        #: pod UID → the try whose Binding may have landed or may yet land
        self._unknown: dict[str, _Try] = {}
        #: UIDs of those of these pods that have left, and since when, on the loop's clock, that is known.
        self._left: dict[str, float] = {}

    def expect_more(self) -> None:
        """Other pods are about to be bound."""
        self._records.expect_more()

    def is_unknown(self, uid: str) -> bool:
        """Whether the outcome of the pod's last try is not known."""
        return uid in self._unknown

    def unknown(self) -> list[str]:
        """UIDs of the pods whose last try's outcome is not known."""
        return list(self._unknown)

    async def settle(self, uid: str) -> None:
        """Find out how the pod's last try ended, if nobody knows yet. Raises OutcomeUnknown if it stays so."""
        unknown = self._unknown.get(uid)
        if unknown is None:
            return
        held = self._ledger.pod(uid)
        if held is None or held.state is ShareState.CONFIRMED:
            # The watch has told: gone, or bound. What it left in the record goes as any dead entry does.
            del self._unknown[uid]
            self._left.pop(uid, None)
            self._ledger.unplan(unknown.held)
            return
        await self._after_silence(unknown)

    async def bind(self, pod: Pod, node: str, request: GpuRequest) -> None:
        """Bind an unbound pod that asks for a share. Raises BindFailed."""
        refused: set[str] = set()
        deadline = asyncio.get_running_loop().time() + self._bind_timeout
        for _ in range(TRIES):
            again = await self._attempt(pod, node, request, deadline, refused)
            if again is None:
                return
            pod = again
        raise BindFailed("the pod kept changing while it was being bound")

    async def _attempt(
        self, pod: Pod, node: str, request: GpuRequest, deadline: float, refused: set[str]
    ) -> Pod | None:
        """None if the pod is bound; the pod as it stands now if it must be tried again. Raises BindFailed."""
        attempt: _Try | None = None
        try:
            held = await self._room(pod, node, request, deadline)
            attempt = _Try(pod, node, request, held, self._name())
            attempt = await self._write_down(attempt, refused)
            again = await self._send(attempt)
        except BindFailed:
            raise
        except Exception:
            self._after_bug(uid_of(pod), attempt)
            raise
        refused.add(attempt.name)
        return again

    def _name(self) -> str:
        return f"{self._process}-{next(self._numbers)}"

    def _after_bug(self, uid: str, attempt: _Try | None) -> None:
        """Something nobody has thought of: no room may stay assumed for ever, nor be free while a Binding may land."""
        held = self._ledger.pod(uid)
        if held is None or held.state is ShareState.CONFIRMED:
            return
        if attempt is not None and held.state is ShareState.RECORDED:
            self._unknown[uid] = attempt
        else:
            give_back(self._ledger, held)

    # --- 1 and 2: choose, assume, open ----------------------------------------------------------------------

    async def _room(self, pod: Pod, node: str, request: GpuRequest, deadline: float) -> PodOnNode:
        """The pod's share with devices, assumed in the ledger. Raises BindFailed."""
        for _ in range(TRIES):
            assumed = self._assume(pod, node, request)
            if all(share.uuid is not None for share in assumed.shares):
                return assumed  # Nothing is to be opened, and it was chosen a moment ago.
            try:
                async with asyncio.timeout_at(deadline):
                    held = await self._reservations.open(assumed, child(pod, "spec").get("schedulerName"))
            except TimeoutError as error:
                keep = len(assumed.shares) == 1
                await self._give_up_room(assumed, keep=keep)
                if keep:
                    self._decisions.resume(assumed.uid, node, assumed.shares[0].gpu_id)
                how = StillOpening if keep else BindFailed
                raise how("a new shared GPU has not reported its device in time") from error
            except GpuExtenderError as error:
                await self._give_up_room(assumed, keep=len(assumed.shares) == 1)
                raise failure_of(error) from error
            if self._is_right(held, request):
                return held
            # The device has another size than its node says: now that it is known, choose again.
            give_back(self._ledger, held)
        raise BindFailed("the node's GPUs are not of the size that was expected")

    def _assume(self, pod: Pod, node: str, request: GpuRequest) -> PodOnNode:
        uid = uid_of(pod)
        self._ledger.disregard_record(uid)
        try:
            return assume(self._decisions, pod, node, request, partial(self._reservations.new_ids, node, uid))
        except BindFailed:
            self._ledger.regard_record(uid)
            raise

    def _is_right(self, held: PodOnNode, request: GpuRequest) -> bool:
        state = self._ledger.state(held.node)
        assert request.share is not None
        memory = {gpu.uuid: gpu for gpu in state.gpus} if state is not None else {}
        gpus = [memory.get(share.uuid) for share in held.shares]
        return all(
            gpu is not None and gpu.used_mib <= gpu.memory_mib and share.mib == request.share.mib_of(gpu.memory_mib)
            for gpu, share in zip(gpus, held.shares, strict=True)
        )

    async def _give_up_room(self, assumed: PodOnNode, *, keep: bool) -> None:
        """Forget; a single GPU that is still opening stays, so that a later bind finds it open."""
        give_back(self._ledger, assumed)
        if not keep:
            await self._close_idle(assumed)

    # --- 3: write the entries -------------------------------------------------------------------------------

    async def _write_down(self, attempt: _Try, refused: set[str]) -> _Try:
        """The try, once its entries stand in the node record. ``refused``: tries whose Bindings are dead."""
        dead = refused | {attempt.name}
        seen: set[str] = set()

        def change(record: NodeRecord) -> NodeRecord | str:
            seen.clear()
            seen.update(entry.attempt for entry in record.of(attempt.uid))
            if seen - dead:
                return "another try to bind this pod is under way"
            if not all(self._reservations.usable(attempt.node, share.gpu_id) for share in attempt.held.shares):
                return "the reservation pod of a shared GPU is gone or going"
            missing = self._evidence.missing(attempt.node, record)
            opened = self._reservations.opened(attempt.node)
            return record.with_entries(_entries(attempt), opened, missing)

        for _ in range(TRIES):
            try:
                await self._records.commit(attempt.node, change)
            except RecordRefused as error:
                if not seen - dead:
                    await self._abandon(attempt)
                    raise BindFailed(str(error)) from error
                if refused:
                    await self._abandon(attempt)
                    raise BindFailed("another extender has taken this pod over") from error
                found = set(seen)
                attempt = await self._past_fence(attempt)
                dead |= found | {attempt.name}
            except ApiError as error:
                await self._if_written(attempt, error)
                break
            except GpuExtenderError as error:
                give_back(self._ledger, attempt.held)
                raise BindFailed(str(error)) from error
            else:
                break
        else:
            await self._abandon(attempt)
            raise BindFailed("other tries to bind this pod keep coming")
        try:
            self._ledger.record(attempt.uid, attempt.name)
        except LedgerError as error:
            # The watch was faster: somebody else has bound it.
            await self._abandon(attempt)
            raise BindFailed(str(error)) from error
        return attempt

    async def _past_fence(self, attempt: _Try) -> _Try:
        """A new try with the pod as it stands after a fence: unbound, all older Bindings dead. Raises BindFailed.

        It needs a name of its own: another extender that has fenced takes the old one for dead.
        """
        namespace, name = namespaced_name(attempt.pod)
        try:
            pod = await self._fence.pod(namespace, name, attempt.uid)
        except ApiError as error:
            await self._abandon(attempt)
            raise BindFailed(str(error)) from error
        if node_of(pod) is not None:
            await self._abandon(attempt)
            self._observe(pod)
            raise BindFailed(f"pod {namespace}/{name} is already bound to node {node_of(pod)}")
        return _Try(pod, attempt.node, attempt.request, attempt.held, self._name())

    async def _if_written(self, attempt: _Try, error: ApiError) -> None:
        """The PUT had no answer, or lost every race: go on if our try stands there, else raise BindFailed."""
        try:
            record = await self._records.read(attempt.node)
        except GpuExtenderError:
            record = NodeRecord.empty()
        if all(entry.attempt != attempt.name for entry in record.of(attempt.uid)):
            # Should the PUT land later, its entry only holds room until somebody drops it.
            give_back(self._ledger, attempt.held)
            await self._close_idle(attempt.held)
            raise BindFailed(str(error)) from error

    # --- 4: the Binding -------------------------------------------------------------------------------------

    async def _send(self, attempt: _Try) -> Pod | None:
        """None if the pod is bound; the pod as it stands now if it must be tried again. Raises BindFailed."""
        try:
            await self._api.bind_pod(_binding(attempt, self._limits(attempt)))
        except Conflict as error:
            return await self._after_conflict(attempt, error)
        except (NotFound, Refused) as error:
            await self._abandon(attempt)
            raise failure_of(error) from error
        except ApiError:
            await self._after_silence(attempt)
        confirm(self._ledger, attempt.uid)
        return None

    def _limits(self, attempt: _Try) -> dict[str, str]:
        """What holds the pod to its share on that node."""
        node, opened = self._ledger.node(attempt.node), self._reservations.opened(attempt.node)
        devices = [
            # The entry is in the record, so the GPU is in the ledger; where it has just gone, the pod goes with it.
            PlacedDevice(share.uuid or "", share.mib, found.mib if (found := opened.get(share.gpu_id)) else share.mib)
            for share in attempt.held.shares
        ]
        return limit_annotations(attempt.request, devices, node.inventory.enforcement if node else None)

    async def _after_conflict(self, attempt: _Try, conflict: Conflict) -> Pod | None:
        """409: our Binding was refused; who or what was faster?"""
        namespace, name = namespaced_name(attempt.pod)
        try:
            pod = await self._api.get_pod(namespace, name)
        except ApiError as error:
            await self._abandon(attempt)
            raise BindFailed(str(error)) from error
        if uid_of(pod) != attempt.uid or node_of(pod) is not None:
            await self._found_bound(attempt, pod)
            return None
        if (pod.get("metadata") or {}).get("deletionTimestamp") or (pod.get("spec") or {}).get("schedulingGates"):
            await self._abandon(attempt)
            raise BindFailed(str(conflict)) from conflict
        give_back(self._ledger, attempt.held)
        return pod

    async def _after_silence(self, attempt: _Try) -> None:
        """No answer to the Binding: only a fence tells. Returns if the pod is bound by this try; raises BindFailed."""
        namespace, name = namespaced_name(attempt.pod)
        try:
            pod = await self._fence.pod(namespace, name, attempt.uid)
        except NotFound as error:
            if self._may_still_run(attempt):
                self._unknown[attempt.uid] = attempt
                raise OutcomeUnknown(f"pod {namespace}/{name} is gone; nobody knows whether it ran") from error
            self._unknown.pop(attempt.uid, None)
            self._left.pop(attempt.uid, None)
            await self._abandon(attempt)
            raise BindFailed(f"pod {namespace}/{name} is gone") from error
        except ApiError as error:
            self._unknown[attempt.uid] = attempt
            raise OutcomeUnknown(f"nobody knows whether the pod was bound: {error}") from error
        self._unknown.pop(attempt.uid, None)
        if node_of(pod) is not None:
            await self._found_bound(attempt, pod)
            return
        await self._abandon(attempt)
        raise BindFailed("the API did not answer the Binding, and it has not taken effect")

    def _may_still_run(self, attempt: _Try) -> bool:
        """Our Binding may have landed before the pod left, and the watch has not told yet how it went."""
        now = asyncio.get_running_loop().time()
        since = self._left.setdefault(attempt.uid, now)
        return not self._ledger.is_gone(attempt.uid) and now - since < grace_of(attempt.pod)

    async def _found_bound(self, attempt: _Try, pod: Pod) -> None:
        """The pod is bound: by this try, or by somebody else. Raises BindFailed for the latter."""
        ours = uid_of(pod) == attempt.uid and annotations_of(pod).get(names.TRY) == attempt.name
        if ours and node_of(pod) == attempt.node:
            confirm(self._ledger, attempt.uid)
            return
        await self._abandon(attempt)
        self._observe(pod)
        raise BindFailed(f"pod {attempt.held.namespace}/{attempt.held.name} is already bound to node {node_of(pod)}")

    async def _abandon(self, attempt: _Try) -> None:
        """A definite end without a bind: forget, drop our entries, close what was opened for nothing.

        Where the entries cannot be dropped now they only hold room: the next write of the record leaves them out once
        the pod is bound or gone.
        """
        give_back(self._ledger, attempt.held)
        try:
            await self._records.commit(attempt.node, lambda record: record.without([(attempt.uid, attempt.name)]))
        except GpuExtenderError:
            return
        await self._close_idle(attempt.held)

    async def _close_idle(self, held: PodOnNode) -> None:
        await self._reservations.close_idle(held.node, {share.gpu_id for share in held.shares})


def _entries(attempt: _Try) -> list[Entry]:
    held, grace = attempt.held, grace_of(attempt.pod)
    return [Entry.of(held, share, attempt.name, grace) for share in held.shares]


def _binding(attempt: _Try, limits: Mapping[str, str]) -> dict[str, object]:
    """Node, annotations and try in one write, at exactly the version of the pod that was read."""
    namespace, name = namespaced_name(attempt.pod)
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": attempt.uid,
            "resourceVersion": attempt.pod["metadata"]["resourceVersion"],
            "annotations": {
                **placement_annotations(attempt.held, attempt.request.containers),
                **limits,
                names.TRY: attempt.name,
            },
        },
        "target": {"apiVersion": "v1", "kind": "Node", "name": attempt.node},
    }
