"""How large a model is, and what may happen in it."""

from dataclasses import dataclass, replace

from tests.model.protocol import FULL, Protocol
from tests.model.state import Pod, Record, Reservation


@dataclass(frozen=True, slots=True)
class Config:
    """One node and two or more extenders."""

    #: For each of a user's pods: MiB on each device, and on how many devices.
    sizes: tuple[tuple[int, int], ...]
    #: MiB of a device.
    card: int = 1
    devices: int = 1
    reservations: tuple[Reservation, ...] = (Reservation(),)
    record: Record | None = None
    #: The first pods, where they run already; the others wait.
    bound: tuple[Pod, ...] = ()
    extenders: int = 2
    #: How many mishaps come together.
    mishaps: int = 2
    #: Which. Of requests: timeout, repeat, refuse; of extenders: kill; of pods: delete, write, elsewhere; of
    #: reservation pods: steal; of the record: edit-record, delete-record (once, while shares are bound),
    #: delete-unused-record (whether they are or not), delete-record-again.
    kinds: tuple[str, ...] = ("timeout", "kill")
    #: What extenders do besides binding: open, close, reconcile, repair.
    jobs: tuple[str, ...] = ()
    protocol: Protocol = FULL
    #: Whether an extender's watch may lag behind the API.
    lag: bool = False

    def without(self, *sentences: str) -> "Config":
        """The same with these sentences of the protocol left out."""
        return replace(self, protocol=self.protocol.without(*sentences))
