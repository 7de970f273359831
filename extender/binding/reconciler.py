"""The background work of binding: what no bind does, because nobody waits for it.

It runs under a Lease to save work; two at once are as safe as two binds.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from extender.binding.api import KubeApi, Pod
from extender.binding.fence import Fence
from extender.binding.notice import Tell
from extender.binding.orphans import Orphans
from extender.binding.records import NodeRecords
from extender.binding.repair import Repair
from extender.binding.reports import Reports
from extender.binding.reservations import Reservations
from extender.binding.spares import Spares
from extender.binding.upkeep import Limits, Upkeep
from extender.core.errors import GpuExtenderError
from extender.core.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may last, in seconds."""

    #: A shared GPU without a share.
    idle: float = 60.0
    #: A reservation pod without a report.
    report: float = 120.0
    #: An entry of the node record whose pod is neither bound nor being bound here, and a reservation pod that finds no
    #: device: more than a bind may take.
    entry: float = 20.0


class Reconciler:
    """``once`` is one pass; what fails in it is done again by the next.

    ``waiting``: pods that kube-scheduler could not place. ``spare``: idle GPUs that each node keeps open. ``learn``:
    nodes on which a GPU is opened at once only to learn its memory.
    """

    def __init__(  # noqa: PLR0913 - what it works with
        self,
        api: KubeApi,
        ledger: Ledger,
        *,
        records: NodeRecords,
        reservations: Reservations,
        fence: Fence,
        observe: Callable[[Pod], None],
        clock: Callable[[], float],
        tell: Tell = lambda _notice: None,
        waiting: Callable[[], Iterable[Pod]] = lambda: (),
        patience: Patience | None = None,
        spare: int = 0,
        learn: int = 0,
    ) -> None:
        patience = patience or Patience()
        self._ledger = ledger
        self._clock = clock
        self._repair = Repair(
            api,
            ledger,
            records=records,
            reservations=reservations,
            observe=observe,
            tell=tell,
            patience=patience.report,
        )
        self._spares = Spares(ledger, reservations=reservations, observe=observe, number=spare)
        self._upkeep = Upkeep(
            ledger,
            reservations=reservations,
            tell=tell,
            waiting=waiting,
            limits=Limits(patience.idle, patience.report, patience.entry),
            spares=self._spares,
        )
        self._reports = Reports(
            api,
            ledger,
            reservations=reservations,
            observe=observe,
            tell=tell,
            waiting=waiting,
            at_once=learn,
            clock=clock,
        )
        self._orphans = Orphans(
            ledger, records=records, fence=fence, observe=observe, tell=tell, age=patience.entry, clock=clock
        )
        self.close_idle_now = self._upkeep.close_idle_now

    async def once(self) -> None:
        """Look at everything that is shared, and do what is due."""
        now = self._clock()
        nodes = self._ledger.shared_nodes()
        states = [state for node in nodes if (state := self._ledger.state(node)) is not None]
        ages = self._repair.see(states, now)
        for state in states:
            with suppress(GpuExtenderError):
                await self._repair.once(state.name, ages)
        # Before what has told all that it can is closed.
        await self._reports.keep()
        if await self._upkeep.once(now):
            with suppress(GpuExtenderError):
                await self._spares.once()
                await self._reports.ask()
        await self._orphans.once()
