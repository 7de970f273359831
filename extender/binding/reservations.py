"""Opening and closing shared GPUs: each is one reservation pod."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Final

from extender.binding.api import KubeApi, Pod
from extender.binding.records import NodeRecords, RecordRefused
from extender.core import names
from extender.core.accounting import holds_device
from extender.core.errors import Conflict, GpuExtenderError, LedgerError, NotFound, Unavailable
from extender.core.ledger import Ledger
from extender.core.podreader import reservation_of
from extender.core.record import Opened
from extender.core.reservation import Template, reservation_name, reservation_pod
from extender.core.values import NOT_NEEDED, PodOnNode, Reservation

#: Seconds that the agent gets when we close a GPU: it ignores SIGTERM, and nothing runs on the device any more.
CLOSE_GRACE: Final = 2


class Reservations:
    """The reservation pods of a cluster."""

    def __init__(
        self, api: KubeApi, ledger: Ledger, records: NodeRecords, process: str, template: Callable[[], Template]
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._records = records
        self._process = process
        #: Asked each time: the owner of reservation pods may be made anew.
        self._template = template
        self._attempts = count()
        #: id → the call that creates that reservation pod
        self._opening: dict[str, asyncio.Task[None]] = {}
        #: Wakes whoever waits for a report; replaced each time.
        self._news: asyncio.Event = asyncio.Event()

    def new_ids(self, node: str, pod_uid: str, number: int) -> Sequence[str]:
        """Names for GPUs about to be opened for a pod."""
        state = self._ledger.state(node)
        node_uid = state.node.uid if state is not None else node
        # With the process in it: one that starts anew must not use the names of the one before.
        attempt = f"{self._process}-{next(self._attempts)}"
        return [reservation_name(node_uid, pod_uid, index, attempt) for index in range(number)]

    def opened(self, node: str) -> Mapping[str, Opened]:
        """What the node's reservation pods have reported."""
        return {r.id: opened for r in self._ledger.reservations(node) if (opened := opened_of(r)) is not None}

    def usable(self, node: str, gpu_id: str) -> bool:
        """Whether a share may still land there, as far as the watch has shown."""
        seen = next((r for r in self._ledger.reservations(node) if r.id == gpu_id), None)
        return (seen is None or _takes(seen)) and not self._ledger.is_gone(gpu_id)

    def changed(self) -> None:
        """The watch has shown something new of a reservation pod, or the end of a pod that waits for one."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def open(self, pod: PodOnNode, scheduler: str | None) -> PodOnNode:
        """The pod's share once every GPU of it is held by a reservation pod that has reported its device.

        ``scheduler``: the pod's. The caller bounds the time. Raises ApiError for a pod that the API refuses,
        LedgerError if a GPU is gone.
        """
        planned = {r.id: r for r in self._ledger.reservations(pod.node)}
        for share in pod.shares:
            reservation = planned.get(share.gpu_id)
            if share.uuid is None and reservation is not None and reservation.uid is None:
                await self._create_once(reservation, scheduler)
        while True:
            news = self._news
            held = self._ledger.pod(pod.uid)
            if held is None:
                raise LedgerError(f"pod {pod.namespace}/{pod.name} has ended")
            if all(share.uuid is not None for share in held.shares):
                return held
            opening = {r.id for r in self._ledger.reservations(pod.node) if _takes(r)}
            if any(share.uuid is None and share.gpu_id not in opening for share in held.shares):
                raise LedgerError("the reservation pod of a new shared GPU has ended")
            await news.wait()

    def idle(self, node: str) -> list[Reservation]:
        """The node's reservation pods that no share needs; ended ones too."""
        state = self._ledger.state(node)
        if state is None:
            return []
        used = {gpu.id for gpu in state.gpus if gpu.shares}
        return [r for r in self._ledger.reservations(node) if r.uid is not None and r.id not in used]

    async def close_idle(self, node: str, ids: Collection[str] | None = None) -> None:
        """Close those of the node's shared GPUs (all, or these) that hold no share."""
        closing = [r for r in self.idle(node) if ids is None or r.id in ids]
        for reservation in closing:
            # From here on no bind of this process chooses it.
            self._ledger.put_reservation(replace(reservation, closing=True))
        for reservation in closing:
            await self.close(reservation)

    async def search(self, node: str, purpose: str) -> Pod | None:
        """Open a GPU there for no pod. None where nobody knows whether that has worked. Raises ApiError."""
        [name] = self.new_ids(node, purpose, 1)
        try:
            return await self._api.create_pod(self._manifest(name, node))
        except (Conflict, Unavailable):
            return None

    async def _create_once(self, reservation: Reservation, scheduler: str | None) -> None:
        """One creation per reservation pod: a second share of a GPU that is just being opened waits for the first."""
        task = self._opening.get(reservation.id)
        if task is None:
            task = asyncio.create_task(self._create(reservation, scheduler))
            self._opening[reservation.id] = task
            task.add_done_callback(lambda done: self._created(reservation.id, done))
        await asyncio.shield(task)

    def _created(self, reservation_id: str, task: asyncio.Task[None]) -> None:
        del self._opening[reservation_id]
        if not task.cancelled():
            task.exception()  # Retrieved: whoever waited for it may have met his deadline.

    async def _create(self, reservation: Reservation, scheduler: str | None) -> None:
        try:
            pod = await self._api.create_pod(self._manifest(reservation.id, reservation.node, scheduler))
        except (Conflict, Unavailable):
            return  # It exists, or may exist: its report tells.
        known = {r.id: r for r in self._ledger.reservations(reservation.node)}.get(reservation.id)
        created = reservation_of(pod)
        # Whoever gives it up before the watch shows it must know its UID. What the watch has shown is newer.
        unseen = known is None or known.uid is None
        if created is not None and unseen and not self._ledger.is_gone(reservation.id):
            self._ledger.put_reservation(created)

    async def close(self, reservation: Reservation, because: str = NOT_NEEDED) -> bool:
        """Say so on the pod, PUT state closing, DELETE. A step that fails leaves a GPU that the next close finds idle.

        ``because``: a word. Whether the DELETE has been accepted.
        """
        state = self._ledger.state(reservation.node)
        holds = state is None or holds_device(reservation, state.node)
        self._ledger.put_reservation(replace(reservation, closing=True))
        try:
            # First of all, for a record that is lost from here on and made anew says nothing of what was being closed.
            opened, version = await self._withdraw(reservation, because)
            if opened is not None:
                # Even for a GPU that never stood there: another extender may be about to use it.
                await self._records.commit(reservation.node, lambda record: record.closing(opened, holds=holds))
            where = names.RESERVATION_NAMESPACE, reservation.id
            await self._api.delete_pod(*where, reservation.uid or "", CLOSE_GRACE, version)
            if self._ledger.is_gone(reservation.id):
                await self.left(reservation.node, reservation.id)
        except NotFound:
            self._ledger.drop_reservation(reservation.node, reservation.id)
        except BaseException as error:
            # It still holds its device: nothing is lost but room. What the watch has shown meanwhile stands.
            if replace(reservation, closing=True) in self._ledger.reservations(reservation.node):
                self._ledger.put_reservation(reservation)
            if not isinstance(error, GpuExtenderError):
                raise  # Cancelled, as when the lead is lost.
            if isinstance(error, RecordRefused):
                await self.take_back(reservation)
            return False
        return True

    async def take_back(self, reservation: Reservation) -> None:
        """The word that it is being closed: shares are on it, so it stays. What fails, the next pass tries again."""
        patch = {"metadata": {"uid": reservation.uid, "annotations": {names.CLOSED_BECAUSE: None}}}
        with suppress(GpuExtenderError):
            await self._api.patch_pod(names.RESERVATION_NAMESPACE, reservation.id, patch)

    async def remove(self, reservation: Reservation) -> None:
        """Delete one that holds its device no longer, whatever runs on that. Raises ApiError."""
        with suppress(NotFound):
            where = names.RESERVATION_NAMESPACE, reservation.id
            await self._api.delete_pod(*where, reservation.uid or "", CLOSE_GRACE)

    async def _withdraw(self, reservation: Reservation, because: str) -> tuple[Opened | None, str | None]:
        """Say on the pod why it goes: what it has reported, or the version at which it has not."""
        patch = {"metadata": {"uid": reservation.uid, "annotations": {names.CLOSED_BECAUSE: because}}}
        pod = await self._api.patch_pod(names.RESERVATION_NAMESPACE, reservation.id, patch)
        told = reservation_of(pod)
        opened = opened_of(told) if told is not None else None
        # At that version it has not reported, so nobody can have put a share on it; a report moves the version.
        return opened, None if opened is not None else pod["metadata"]["resourceVersion"]

    async def left(self, node: str, reservation_id: str) -> None:
        """The reservation pod is gone: its id leaves the record, unless shares are on it. Raises ApiError."""
        await self._records.commit(node, lambda record: record.without_gpu(reservation_id))

    def _manifest(self, name: str, node: str, scheduler: str | None = None) -> dict[str, object]:
        state = self._ledger.state(node)
        resource = state.inventory.whole_resource if state is not None else None
        return reservation_pod(name, node, resource or names.GPU_RESOURCE, self._template(), scheduler)


def _takes(reservation: Reservation) -> bool:
    return not (reservation.ended or reservation.closing or reservation.problem)


def opened_of(reservation: Reservation) -> Opened | None:
    """What a record needs to take the GPU in; None until its reservation pod has reported."""
    if reservation.uid is None or reservation.device is None or reservation.memory_mib is None:
        return None
    return Opened(reservation.id, reservation.uid, reservation.device, reservation.memory_mib)
