"""Learning beside the event loop: in a process of its own, swapped in between ticks, so that no decision waits."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from typing import TypeVar

import structlog

from extender.core.learned import Learned, refresh
from extender.core.seen import Seen
from extender.core.strategies import Strategy

log = structlog.get_logger()

Adopt = Callable[[Learned], None]
T = TypeVar("T")
_Job = tuple[Seen, Collection[Strategy], Adopt]


class Background:
    """A ``Refresher`` for a running event loop. At most one refresh runs; of those that wait only the latest counts."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._running = False
        self._next: _Job | None = None

    def start(self) -> None:
        """Start the process now: in the middle of the first decision it would cost milliseconds."""
        self._submit(os.getpid)  # Any call does.

    def close(self) -> None:
        """End the process, after what it is learning now: seconds. The next start learns from the pods in the cluster.

        Not waiting for it is a race: Python's own end wakes the pool's thread through a pipe that this closes.
        """
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __call__(self, seen: Seen, strategies: Collection[Strategy], adopt: Adopt) -> None:
        """See ``decisions.Refresher``. ``adopt`` is called on the event loop."""
        self._next = (seen, strategies, adopt)
        if not self._running:
            self._begin()

    def _begin(self) -> None:
        if self._next is None:
            return
        (seen, strategies, adopt), self._next = self._next, None
        try:
            learned = asyncio.wrap_future(self._submit(refresh, seen, strategies))
        except BrokenProcessPool:
            self._pool = None
            log.warning("learning: the process has died; the next refresh starts another")
            return
        self._running = True
        learned.add_done_callback(lambda done: self._end(done, adopt))

    def _end(self, done: "asyncio.Future[Learned]", adopt: Adopt) -> None:
        self._running = False
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            adopt(done.result())
        else:
            # Decisions go on with what was learned before.
            log.warning("learning failed", error=str(error))
            if isinstance(error, BrokenProcessPool):
                self._pool = None
        self._begin()

    def _submit(self, function: Callable[..., T], *arguments: object) -> "Future[T]":
        # A process that starts here inherits what is blocked: Ctrl-C in a terminal would reach it before it ignores it.
        # Python's tracker starts first, for it lets Ctrl-C through again.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._process().submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _process(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Not fork: the service has threads.
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, initializer=_be_second)
        return self._pool


def _be_second() -> None:
    """Ctrl-C reaches every process of the terminal; this one ends when the service closes it, or has died. Decisions
    have the processor first."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)
