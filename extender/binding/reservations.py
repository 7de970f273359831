"""Opening and closing shared GPUs: each is one reservation pod."""

from collections.abc import Sequence
from itertools import count

from extender.binding.api import KubeApi
from extender.core import names
from extender.core.errors import ApiError, LedgerError, NotFound
from extender.core.ledger import Ledger
from extender.core.reservation import reservation_name, reservation_pod
from extender.core.values import PodOnNode, Reservation


class Reservations:
    """The reservation pods of a cluster."""

    def __init__(self, api: KubeApi, ledger: Ledger, *, scheduler: str, image: str) -> None:
        self._api = api
        self._ledger = ledger
        self._scheduler = scheduler
        self._image = image
        self._attempts = count()

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
                await self._api.create_pod(self._manifest(planned[share.gpu_id]))
        held = self._ledger.pod(pod.uid)
        if held is None or any(share.uuid is None for share in held.shares):
            raise LedgerError("the reservation pod of a new shared GPU has not reported a device")
        return held

    async def close_idle(self, node: str) -> None:
        """Delete the reservation pods of that node whose GPUs hold no share."""
        state = self._ledger.state(node)
        idle = {gpu.id for gpu in state.gpus if not gpu.shares} if state is not None else set()
        for reservation in self._ledger.reservations(node):
            if reservation.id in idle and reservation.uid is not None:
                await self._delete(reservation)

    async def _delete(self, reservation: Reservation) -> None:
        try:
            await self._api.delete_pod(names.RESERVATION_NAMESPACE, reservation.id, reservation.uid or "")
        except NotFound:
            self._ledger.drop_reservation(reservation.node, reservation.id)
        except ApiError:
            return  # It still holds its device: nothing is lost but room. The next close tries again.

    def _manifest(self, reservation: Reservation) -> dict[str, object]:
        state = self._ledger.state(reservation.node)
        resource = state.inventory.whole_resource if state is not None else None
        return reservation_pod(
            reservation.id, reservation.node, resource or names.GPU_RESOURCE, self._scheduler, self._image
        )
