"""Python's garbage collector while much is read that stays."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


class Collector:
    """Off as long as anybody reads a list.

    It would look through all that was read so far again and again, and find nothing: most of the time that a large
    list took. What has been read by then it need never look at again; what is dropped of that is freed all the same,
    for JSON has no cycles.
    """

    def __init__(self) -> None:
        self._readers = 0

    @contextmanager
    def off(self) -> Iterator[None]:
        """Readers may overlap."""
        if not self._readers:
            gc.collect()  # What is garbage by now would be frozen with the rest, and stay for ever.
        self._readers += 1
        gc.disable()
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                gc.freeze()
                gc.enable()
