"""Virtual time: a deadline passes when nothing else is left to do, and never before.

A folder's conftest imports ``pytest_asyncio_loop_factories``, and every test below it runs so.
"""

import asyncio
import selectors
from typing import Any

import pytest


class _NoWait(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, that timer is due now."""

    loop: "VirtualTime"

    def select(self, timeout: float | None = None) -> Any:
        """See selectors. ``timeout`` None: nothing will ever happen but input."""
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.loop.now += timeout
        return ready


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is work."""

    now = 0.0

    def __init__(self) -> None:
        selector = _NoWait()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self.now


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """For pytest-asyncio."""
    return {"virtual-time": VirtualTime}
