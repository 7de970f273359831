"""Opening and closing shared GPUs: each is one reservation pod."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from extender.binding.api import KubeApi, Pod
from extender.core import names
from extender.core.errors import ApiError, LedgerError, NotFound
from extender.core.ledger import Ledger
from extender.core.reservation import Template, reservation_name, reservation_pod
from extender.core.values import PodOnNode, Reservation


class Reservations:
    """The reservation pods of a cluster."""

    def __init__(self, api: KubeApi, ledger: Ledger, *, scheduler: str, image: str) -> None:
        self._api = api
        self._ledger = ledger
        self._template = Template(scheduler, image)
        self._attempts = count()
        #: id → the call that creates that reservation pod
        self._opening: dict[str, asyncio.Task[Pod]] = {}

    def new_ids(self, node: str, pod_uid: str, number: int) -> Sequence[str]:
        """Names for GPUs about to be opened for a pod."""
        state = self._ledger.state(node)
        node_uid = state.node.uid if state is not None else node
        attempt = next(self._attempts)
        return [reservation_name(node_uid, pod_uid, index, attempt) for index in range(number)]

    async def open(self, pod: PodOnNode) -> PodOnNode:
        """See that every GPU of the pod is held by a reservation pod that has reported its device.

        Raises ApiError, or LedgerError if one did not report.
        """
        planned = {r.id: r for r in self._ledger.reservations(pod.node)}
        for share in pod.shares:
            if share.uuid is None and planned[share.gpu_id].uid is None:
                await self._create(planned[share.gpu_id])
        held = self._ledger.pod(pod.uid)
        if held is None or any(share.uuid is None for share in held.shares):
            raise LedgerError("the reservation pod of a new shared GPU has not reported a device")
        return held

    async def close_idle(self, node: str) -> None:
        """Delete the reservation pods of that node whose GPUs hold no share."""
        state = self._ledger.state(node)
        idle = {gpu.id for gpu in state.gpus if not gpu.shares} if state is not None else set()
        closing = [r for r in self._ledger.reservations(node) if r.id in idle and r.uid is not None]
        for reservation in closing:
            # From here on no share lands on it: its deletion is under way.
            self._ledger.put_reservation(replace(reservation, closing=True))
        for reservation in closing:
            await self._delete(reservation)

    async def _create(self, reservation: Reservation) -> None:
        """One creation per reservation pod: a second share of a GPU that is just being opened waits for the first."""
        task = self._opening.get(reservation.id)
        if task is None:
            task = asyncio.ensure_future(self._api.create_pod(self._manifest(reservation)))
            self._opening[reservation.id] = task
            task.add_done_callback(lambda _: self._opening.pop(reservation.id, None))
        await asyncio.shield(task)

    async def _delete(self, reservation: Reservation) -> None:
        try:
            await self._api.delete_pod(names.RESERVATION_NAMESPACE, reservation.id, reservation.uid or "")
        except NotFound:
            self._ledger.drop_reservation(reservation.node, reservation.id)
        except ApiError:
            # It still holds its device: nothing is lost but room. The next close tries again.
            if replace(reservation, closing=True) in self._ledger.reservations(reservation.node):
                self._ledger.put_reservation(reservation)

    def _manifest(self, reservation: Reservation) -> dict[str, object]:
        state = self._ledger.state(reservation.node)
        resource = state.inventory.whole_resource if state is not None else None
        return reservation_pod(reservation.id, reservation.node, resource or names.GPU_RESOURCE, self._template)
