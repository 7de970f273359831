"""v1 Events: what users read in ``kubectl describe``.

Telling costs a decision nothing: it puts a notice into a bounded queue, and a task sends it later, slowly enough that
a burst of pods is not slowed down; warnings go first. An event that cannot be sent is lost; what is true is in the
objects themselves.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Protocol

import structlog
from cachetools import TTLCache

from extender.core.errors import ApiError, Conflict, Unavailable
from extender.core.notices import LONGEST, Notice

log = structlog.get_logger()

#: Notices that wait to be sent.
MOST_WAITING: Final = 1_000
#: Seconds before the next event: after one that says that all is well, and after a warning. Of a burst of pods the
#: API server has enough to do with the Bindings.
PAUSE: Final = 0.2
PAUSE_AFTER_WARNING: Final = 0.05
#: Seconds after the API has not answered.
PAUSE_AFTER_SILENCE: Final = 5.0
#: Seconds in which the same thing is told once; an API server keeps an event for an hour.
REPEAT_AFTER: Final = 1_800.0
#: Characters of an object's name in that of an event.
_LONGEST_NAME: Final = 200
COMPONENT: Final = "gpu-extender"
#: Where events about objects without a namespace go.
CLUSTER_NAMESPACE: Final = "default"


class EventApi(Protocol):
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else."""

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """Store a v1 Event in its namespace."""


@dataclass(frozen=True, slots=True)
class _Told:
    notice: Notice
    at: datetime


class Events:
    """Events of one process. ``now``: UTC; ``clock``: seconds, for what was told lately."""

    def __init__(
        self,
        api: EventApi,
        *,
        instance: str,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._instance = instance
        self._now = now
        self._sleep = sleep
        self._warnings: deque[_Told] = deque()
        self._others: deque[_Told] = deque()
        self._lately: TTLCache[Notice, bool] = TTLCache(maxsize=10_000, ttl=REPEAT_AFTER, timer=clock)
        self._wake = asyncio.Event()
        #: Events that the API has taken, and those that were lost.
        self.sent = 0
        self.dropped = 0

    def tell(self, notice: Notice) -> None:
        """Send it some time soon, unless the same was told lately or too many wait. Never waits, never raises."""
        if notice in self._lately:
            return
        self._lately[notice] = True
        queue = self._warnings if notice.is_warning else self._others
        queue.append(_Told(notice, self._now()))
        if len(self._warnings) + len(self._others) > MOST_WAITING:
            self._lose((self._others or self._warnings).popleft())
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            while queue := self._warnings or self._others:
                await self._sleep(await self._send(queue.popleft()))
            self._wake.clear()

    async def _send(self, told: _Told) -> float:
        """Seconds to wait before the next one."""
        pause = PAUSE_AFTER_WARNING if told.notice.is_warning else PAUSE
        try:
            await self._api.create_event(event_of(told.notice, told.at, self._instance))
        except Conflict:
            return pause  # Another replica, or an earlier process, has told it.
        except ApiError as error:
            self._lose(told)
            log.warning("event lost", reason=told.notice.reason, error=str(error))
            return PAUSE_AFTER_SILENCE if isinstance(error, Unavailable) else pause
        self.sent += 1
        return pause

    def _lose(self, told: _Told) -> None:
        self.dropped += 1
        # What nobody has read may be told again.
        self._lately.pop(told.notice, None)


def event_of(notice: Notice, at: datetime, instance: str) -> dict[str, Any]:
    """The v1 Event; the API server completes its name, but for what is told only once."""
    about, stamp = notice.about, at.strftime("%Y-%m-%dT%H:%M:%SZ")
    namespace = about.namespace or CLUSTER_NAMESPACE
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": namespace, **_name(notice)},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
            **({"namespace": about.namespace} if about.namespace else {}),
        },
        "reason": notice.reason,
        "message": _shortened(notice.text),
        "type": "Warning" if notice.is_warning else "Normal",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }


def _name(notice: Notice) -> dict[str, str]:
    if not notice.is_lasting:
        return {"generateName": f"{notice.about.name}."}
    digest = blake2b(f"{notice.about.uid}\0{notice.reason}".encode(), digest_size=8).hexdigest()
    return {"name": f"{notice.about.name[:_LONGEST_NAME].rstrip('.-')}.{digest}"}


def _shortened(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= LONGEST:
        return encoded.decode()
    return encoded[: LONGEST - 3].decode(errors="ignore") + "…"
