"""Leader election over a Lease: of several processes one does the background work.

Nothing depends on it for safety: it saves work, and a process that was stopped for a while may act a little after it
has lost the lead. Every write that matters is a compare-and-swap of its own.

Clocks of two machines are never compared. A holder counts its time from before it sent a renewal that succeeded, a
candidate from when it last saw the Lease change; the holder stops ``duration - renew_deadline`` seconds earlier.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Any, Final, Protocol

import structlog

from extender.core.errors import ApiError, Conflict, NotFound
from extender.core.lease import held, holder_of, new, released, same_write, seconds_of

log = structlog.get_logger()

Json = dict[str, Any]
Work = Callable[[], Awaitable[None]]

#: What the manifests allow the extender to write, in its own namespace.
LEASE: Final = "gpu-extender"


class LeaseApi(Protocol):
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else."""

    async def get_lease(self, namespace: str, name: str) -> Json:
        """The Lease as it stands now. Raises NotFound."""

    async def create_lease(self, lease: Mapping[str, Any]) -> Json:
        """Store a new Lease. Raises Conflict if its name is taken."""

    async def put_lease(self, lease: Mapping[str, Any]) -> Json:
        """Replace the Lease. Raises Conflict unless its resourceVersion is the one that stands."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. Raises ValueError unless duration > renew_deadline > retry > 0."""

    #: How long a silent holder keeps the others waiting.
    duration: int = 15
    #: How long a holder goes on without a renewal that succeeded.
    renew_deadline: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry > 0:
            raise ValueError(f"a lease needs duration > renew_deadline > retry > 0, not {self}")


class Elector:
    """One candidate. ``identity``: a name that no other process has ever had."""

    def __init__(  # noqa: PLR0913 - the Lease, the candidate, and time
        self,
        api: LeaseApi,
        namespace: str,
        name: str,
        identity: str,
        *,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        terms: Terms = Terms(),
    ) -> None:
        self._api = api
        self._where = (namespace, name)
        self._identity = identity
        self._clock = clock
        #: UTC: for people who look at the Lease; nothing is decided by it.
        self._now = now
        self._sleep = sleep
        self._terms = terms
        self._leads_until = -inf
        #: The Lease as last seen, and when it was first seen like that.
        self._seen: Mapping[str, Any] | None = None
        self._seen_at = -inf
        #: What was last said to be wrong, so that a log does not repeat it.
        self._trouble = ""

    @property
    def is_leader(self) -> bool:
        """Whether this process may do the work now; false at once after it was stopped for too long."""
        return self._left() > 0

    async def run(self, work: Work) -> None:
        """Do the work whenever this process leads; on loss it is cancelled, its end awaited, and the next lead awaited.

        Returns when the work does; whatever the work raises comes out. However this ends, the Lease is given up.
        """
        try:
            while True:
                await self._campaign()
                log.info("leading", lease="/".join(self._where), identity=self._identity)
                if await self._lead(work):
                    return
                log.warning("lead lost", lease="/".join(self._where), identity=self._identity)
        finally:
            await self._release()

    async def _campaign(self) -> None:
        """Returns once this process leads."""
        while True:
            try:
                if await self._try() and self.is_leader:
                    return
            except ApiError as error:
                self._complain(error)
            await self._sleep(self._terms.retry)

    async def _lead(self, work: Work) -> bool:
        """Whether the work has ended by itself; False if the lead was lost before."""
        renewing = asyncio.ensure_future(self._renew())
        working = asyncio.ensure_future(work())
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            lost = not working.done()
        finally:
            # In this order: others must not lead while the work is still on its way out.
            await _end(working)
            await _end(renewing)
            self._leads_until = -inf
        for task in (working, renewing):
            if not task.cancelled():
                task.result()
        return not lost

    async def _renew(self) -> None:
        """Returns once the lead is lost."""
        while (left := self._left()) > 0:
            await self._sleep(min(self._terms.retry, left))
            try:
                async with asyncio.timeout(max(0.0, self._left())):
                    await self._try()
            except (ApiError, TimeoutError) as error:
                self._complain(error)

    def _left(self) -> float:
        """Seconds for which the lead still holds."""
        return self._leads_until - self._clock()

    # --- one attempt ----------------------------------------------------------------------------------------

    async def _try(self) -> bool:
        """Take or renew the Lease, if it is free or ours. Raises ApiError."""
        lease = await self._read()
        self._look_at(lease)
        if not self._is_open():
            self._leads_until = -inf
            return False
        began = self._clock()
        if not await self._write(lease):
            return False
        self._leads_until = began + self._terms.renew_deadline
        self._trouble = ""
        return True

    async def _read(self) -> Json | None:
        try:
            return await self._api.get_lease(*self._where)
        except NotFound:
            return None

    def _look_at(self, lease: Json | None) -> None:
        # A Lease that somebody deleted says nothing about its holder, who may still be at work.
        if lease is not None and (self._seen is None or lease.get("spec") != self._seen.get("spec")):
            self._seen, self._seen_at = lease, self._clock()

    def _is_open(self) -> bool:
        """Whether we hold it, nobody does, or the holder has been silent for as long as it said."""
        if self._seen is None or holder_of(self._seen) in ("", self._identity):
            return True
        return self._clock() - self._seen_at >= (seconds_of(self._seen) or self._terms.duration)

    async def _write(self, lease: Json | None) -> bool:
        body = held(lease or new(*self._where), self._identity, self._terms.duration, self._stamp())
        try:
            await (self._api.create_lease(body) if lease is None else self._api.put_lease(body))
        except Conflict:
            # The HTTP client may have sent it twice: then the first one has won, and the second one says Conflict.
            stands = await self._read()
            return stands is not None and same_write(stands, body)
        return True

    # --- the end --------------------------------------------------------------------------------------------

    async def _release(self) -> None:
        """Let the next one take over at once; if that fails, it has to wait."""
        try:
            async with asyncio.timeout(self._terms.retry):
                while not await self._given_up():
                    pass  # A renewal of ours was still on its way.
        except (ApiError, TimeoutError) as error:
            log.warning("lease not given up", error=str(error) or "no answer in time")

    async def _given_up(self) -> bool:
        lease = await self._read()
        if lease is None or holder_of(lease) != self._identity:
            return True
        try:
            await self._api.put_lease(released(lease, self._stamp()))
        except Conflict:
            return False
        return True

    def _stamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _complain(self, error: Exception) -> None:
        trouble = str(error) or "no answer in time"
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("leader election", error=trouble)


async def _end(task: "asyncio.Future[None]") -> None:
    """Cancel it and wait until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
