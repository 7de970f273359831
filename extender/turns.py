"""Long work on the event loop, so that nobody waits for its end."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

#: Items between two turns of the others: some milliseconds.
AT_A_TIME: Final = 100


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items; whoever else is ready runs now and then."""
    for number, item in enumerate(items):
        if number % AT_A_TIME == 0:
            await asyncio.sleep(0)
        yield item
