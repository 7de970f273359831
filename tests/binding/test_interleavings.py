"""The code itself in every order: two extenders act at once, and each request to the API is one step.

A run is a sequence of choices: whose request is carried out next, which one gets no answer and lands later, or who is
killed with a request on its way. Time is virtual and nothing else is left to chance, so the same choices are the same
run, and all of them are tried in turn.

Whoever has begun goes on, unless he is interrupted; a silence, a death and a late landing are interruptions too. Most
mistakes need few of them. ``python -m tests.binding.test_interleavings 3`` allows three in each run, and takes minutes.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from typing import Any

import pytest

from extender.binding.records import PAUSE
from extender.core.errors import GpuExtenderError, Unavailable
from extender.core.podreader import node_of
from extender.embedded import EmbeddedCluster
from tests.binding.stage import GpuCluster, is_reservation
from tests.binding.world import CALLS, Killed, Process, violations
from tests.builders import PodBuilder, make_pod
from tests.virtual_time import VirtualTime

CARD = 1000
#: Virtual seconds in which everybody does what he can without an answer, the pause between two PUTs included.
MOMENT = 1.2 * PAUSE
LONG = 10.0
Pod = dict[str, Any]
Request = Callable[[], Awaitable[Any]]


class Fate(Enum):
    """What becomes of a request."""

    ANSWERED = auto()
    #: No answer; it may land later.
    SILENT = auto()
    #: Its sender is killed; it may land later.
    KILLED = auto()


class Turns:
    """Requests wait here until they are chosen."""

    def __init__(self, choices: Sequence[int], interruptions: int) -> None:
        self._choices = choices
        #: How many more there may be.
        self._interruptions = interruptions
        self._last = ""
        self._waiting: dict[str, tuple[str, asyncio.Future[Fate]]] = {}
        self._dead: set[str] = set()
        self._late: list[tuple[str, Request]] = []
        #: For each choice so far: which it was, of how many, and in words.
        self.taken: list[tuple[int, int, str]] = []

    async def fate(self, who: str, what: str) -> Fate:
        """Wait for the turn. Raises Killed where that process is dead already."""
        if who in self._dead:
            raise Killed
        turn: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        key = next(key for number in range(9) if (key := f"{who}{number}") not in self._waiting)
        self._waiting[key] = (what, turn)
        return await turn

    def is_late(self, what: str, request: Request) -> None:
        """The request of a client that has given up."""
        self._late.append((what, request))

    async def choose(self) -> bool:
        """Let the next one happen; False if nothing waits."""
        if not self._waiting:
            return False
        options = [*self._options()][: None if self._interruptions else 1]
        number = self._choices[len(self.taken)] if len(self.taken) < len(self._choices) else 0
        words, happens = options[number]
        self._interruptions -= number > 0
        self.taken.append((number, len(options), words))
        await happens()
        return True

    def _options(self) -> Iterator[tuple[str, Request]]:
        """First what is no interruption."""
        waiting = sorted(self._waiting, key=lambda key: (key[0] != self._last, key))
        for key in waiting:
            yield f"{key} {self._waiting[key][0]}", partial(self._answer, key, Fate.ANSWERED)
        for late in self._late:
            yield f"late {late[0]}", partial(self._land, late)
        for key in waiting:
            yield f"{key} {self._waiting[key][0]}: no answer", partial(self._answer, key, Fate.SILENT)
            yield f"{key} {self._waiting[key][0]}: killed", partial(self._kill, key)

    async def _answer(self, key: str, fate: Fate) -> None:
        self._last = key[0]
        self._waiting.pop(key)[1].set_result(fate)

    async def _kill(self, key: str) -> None:
        """With everything else that it has asked for: that is never sent."""
        self._dead.add(key[0])
        await self._answer(key, Fate.KILLED)
        for other in [other for other in self._waiting if other[0] == key[0]]:
            self._waiting.pop(other)[1].set_exception(Killed())

    async def _land(self, late: tuple[str, Request]) -> None:
        self._late.remove(late)
        try:
            await late[1]()
        except GpuExtenderError:
            return  # Whatever it answers, nobody is there.

    def __str__(self) -> str:
        return "".join(f"\n  {words}" for _, _, words in self.taken)

    async def land_all(self) -> None:
        """What is late lands now."""
        for late in list(self._late):
            await self._land(late)


class Gate:
    """The cluster as one extender sees it: each request waits for its turn."""

    def __init__(self, cluster: EmbeddedCluster, turns: Turns, who: str) -> None:
        self._cluster = cluster
        self._turns = turns
        self._who = who

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cluster, name)
        return partial(self._call, name, found) if name in CALLS else found

    async def _call(self, name: str, request: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        fate = await self._turns.fate(self._who, name)
        if fate is Fate.ANSWERED:
            return await request(*arguments)
        self._turns.is_late(f"{self._who} {name}", partial(request, *arguments))
        raise Killed if fate is Fate.KILLED else Unavailable("no answer in time")


class OneNode(GpuCluster):
    """Its reservation pods for which no device was free get one as soon as one is."""

    def __init__(self, gpus: int) -> None:
        super().__init__(gpus, "n", mib=CARD)

    async def delete_pod(
        self, namespace: str, name: str, uid: str, grace_seconds: int | None = None, version: str | None = None
    ) -> None:
        await super().delete_pod(namespace, name, uid, grace_seconds, version)
        for pod in [*self.pods()]:
            if is_reservation(pod) and node_of(pod) is None:
                self._start_reservation(pod)
                self._store(pod)


class Scene:
    """What the two extenders find, what happens then, and what each does."""

    #: Whether a device without a reservation pod is what the scene is about.
    loses = False

    def __init__(self, before: Sequence[PodBuilder], waiting: Sequence[PodBuilder], gpus: int = 1) -> None:
        self.before = before
        self.waiting = waiting
        self.gpus = gpus

    async def befalls(self, cluster: OneNode, processes: Sequence[Process]) -> None:
        """Before they act."""

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        """What that extender does."""
        await process.bind(pods[number % len(pods)], "n")

    def violations(self, cluster: EmbeddedCluster) -> list[str]:
        """Those that the scene does not bring about itself."""
        found = violations(cluster, CARD, self.gpus)
        return [each for each in found if not (self.loses and "nobody reserves it" in each)]


class CloseOrBind(Scene):
    """The first extender closes what is idle."""

    async def befalls(self, cluster: OneNode, processes: Sequence[Process]) -> None:
        await cluster.delete_pod("default", "ends", "")

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        if number:
            await process.bind(pods[0], "n")
        else:
            await process.reservations.close_idle("n")


class Repairs(Scene):
    """The reservation pod under a share is gone; both look for its device, and the first one found is another."""

    loses = True

    async def befalls(self, cluster: OneNode, processes: Sequence[Process]) -> None:
        cluster.order["n"] = ["GPU-n-1"]
        [reservation] = filter(is_reservation, cluster.pods())
        metadata = reservation["metadata"]
        await cluster.delete_pod(metadata["namespace"], metadata["name"], metadata["uid"])

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        for _ in range(4):
            await process.reconcile()
            process.now += 5


class RepairOrBind(Repairs):
    """The second one binds; ``blindly``: its watch has not shown that the reservation pod is gone."""

    def __init__(self, first: PodBuilder, waiting: PodBuilder, *, blindly: bool) -> None:
        super().__init__([first], [waiting], gpus=2)
        self._blindly = blindly

    async def befalls(self, cluster: OneNode, processes: Sequence[Process]) -> None:
        if self._blindly:
            processes[1].sees_no_more()
        await super().befalls(cluster, processes)

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        if number:
            await process.bind(pods[0], "n")
        else:
            await super().acts(number, process, pods)


def share(name: str, mib: int) -> PodBuilder:
    return make_pod(name).gpu_memory(mib)


SCENES = {
    "two pods, room for one": Scene([share("first", 300)], [share("a", 600), share("b", 700)]),
    "the same pod twice": Scene([share("first", 300)], [share("a", 600)]),
    "both open the last GPU": Scene([], [share("a", 600), share("b", 700)]),
    "each on the last two GPUs": Scene(
        [share("first", 300).num_devices(2)], [share(name, 600).num_devices(2) for name in "ab"], gpus=2
    ),
    "a close and a bind": CloseOrBind([share("ends", 300)], [share("a", 600)]),
    "two repairs": Repairs([share("first", 300)], [share("a", 600)], gpus=2),
    "a repair and a bind": RepairOrBind(share("first", 300), share("a", 800), blindly=False),
    "a repair and a blind bind": RepairOrBind(share("first", 300), share("a", 800), blindly=True),
    "a repair and a bind beside the lost one": RepairOrBind(share("first", 300), share("a", 600), blindly=True),
}


async def play(scene: Scene, choices: Sequence[int], interruptions: int) -> Turns:
    """One run. The choices that were taken, in the end with those that nobody had given."""
    cluster = OneNode(scene.gpus)
    turns = Turns(choices, interruptions)
    good = Process(cluster)
    for builder in scene.before:
        assert await good.bind(await cluster.submit(builder.build()), "n") is None
    good.die()
    pods = [await cluster.submit(builder.build()) for builder in scene.waiting]
    gates: list[Any] = [Gate(cluster, turns, who) for who in "AB"]
    processes = [Process(gate) for gate in gates]
    await scene.befalls(cluster, processes)
    tasks = [asyncio.create_task(_act(scene, number, process, pods)) for number, process in enumerate(processes)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(MOMENT)
        if not await turns.choose():
            await asyncio.sleep(LONG)
        assert scene.violations(cluster) == [], turns
    await asyncio.gather(*tasks)
    await _afterwards(scene, cluster, turns, pods)
    return turns


async def _act(scene: Scene, number: int, process: Process, pods: Sequence[Pod]) -> None:
    try:
        await scene.acts(number, process, pods)
    except Killed:
        process.die()


async def _afterwards(scene: Scene, cluster: EmbeddedCluster, turns: Turns, pods: Sequence[Pod]) -> None:
    """A third extender goes on, with its background work; then the rest lands. What fits runs in the end."""
    last = Process(cluster)
    for passed in range(4):
        for pod in pods:
            await last.bind(pod, "n")
            assert scene.violations(cluster) == [], turns
        if passed > 1 and _is_any_bound(cluster, pods):
            break
        await turns.land_all()
        assert scene.violations(cluster) == [], turns
        # The background work ends what was interrupted: entries that nobody answers for, closes.
        for _ in range(3):
            await last.reconciler.once()
            last.now += 30
        assert scene.violations(cluster) == [], turns
    assert violations(cluster, CARD, scene.gpus) == [], turns
    last.decisions.ledger.check()
    assert _is_any_bound(cluster, pods), turns


def _is_any_bound(cluster: EmbeddedCluster, pods: Sequence[Pod]) -> bool:
    return any((cluster.find("default", pod["metadata"]["name"]) or pod)["spec"].get("nodeName") for pod in pods)


def every_run(scene: Scene, interruptions: int) -> int:
    """Play every sequence of choices; how many there are."""
    choices: list[int] | None = []
    runs = 0
    while choices is not None:
        with asyncio.Runner(loop_factory=VirtualTime) as runner:
            choices = _next(runner.run(play(scene, choices, interruptions)).taken)
        runs += 1
    return runs


def _next(taken: list[tuple[int, int, str]]) -> list[int] | None:
    """The last choice that was not the last of its kind is the next one; depth first."""
    for place in reversed(range(len(taken))):
        number, of, _ = taken[place]
        if number + 1 < of:
            return [*(number for number, _, _ in taken[:place]), number + 1]
    return None


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENES)
def test_every_order(name: str) -> None:
    """No device is given out twice, and what fits runs in the end, whoever is interrupted, unheard or late."""
    assert every_run(SCENES[name], interruptions=2) > 10


if __name__ == "__main__":
    for scene_name, scene in SCENES.items():
        print(f"{scene_name}: {every_run(scene, int(sys.argv[1]))} runs")
