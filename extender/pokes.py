"""Pokes: a write to a pod that waits, so that kube-scheduler tries it again now that it may fit.

A pod that an extender has rejected is tried again after any event that kube-scheduler sees. Three things need a poke:
kube-scheduler was faster than our watch, and got an answer from before the change; what was freed is nothing that it
sees (a claim, a node record, a reservation pod's report); the extender was new, and knew less.

Every process pokes the pods that it has rejected itself, leader or not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any, Final, Protocol

import structlog

from extender.core import names
from extender.core.errors import ApiError, NotFound, Refused
from extender.core.podreader import node_of
from extender.core.waiting import Waiting
from extender.core.waitingpod import WaitingPod

log = structlog.get_logger()

#: Seconds between two looks at what was freed: kube-scheduler, which hears of most of it too, goes first.
PAUSE: Final = 0.2


class PodApi(Protocol):
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else."""

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Merge-patch; the pod as it stands then. Another ``metadata.uid`` than the pod's raises Refused."""


class Pokes:
    """Pokes of one process. ``process``: a name that no other one has ever had."""

    def __init__(
        self,
        api: PodApi,
        waiting: Waiting,
        *,
        process: str,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._waiting = waiting
        self._process = process
        self._clock = clock
        self._sleep = sleep
        self._values = count(1)
        #: Pokes that the API has taken.
        self.sent = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._sleep(PAUSE)
            await self._round()

    async def _round(self) -> None:
        due = self._waiting.due(self._clock())
        while due:
            try:
                await self._poke(due[0])
            except ApiError as error:
                log.warning("poke", pod=f"{due[0].namespace}/{due[0].name}", error=str(error))
                for pod in due:
                    self._waiting.missed(pod)
                return
            due.pop(0)

    async def _poke(self, pod: WaitingPod) -> None:
        """Raises ApiError if nobody knows whether it was written."""
        if pod.uid not in self._waiting:
            return  # kube-scheduler has come back for it while we were writing to others.
        # A new value each time: a patch that changes nothing is no event.
        value = f"{self._process}-{next(self._values)}"
        patch = {"metadata": {"uid": pod.uid, "annotations": {names.POKE: value}}}
        try:
            stands = await self._api.patch_pod(pod.namespace, pod.name, patch)
        except (NotFound, Refused):
            self._waiting.forget(pod.uid)
            return
        self.sent += 1
        if node_of(stands) is not None:
            self._waiting.forget(pod.uid)
