"""The code itself in every order: two extenders act at once, and each request to the API is one step.

A run is a sequence of choices: whose request is carried out next, or which one gets no answer and lands later. Time is
virtual and nothing else is left to chance, so the same choices are the same run, and all of them are tried in turn.

Whoever has begun goes on, unless he is interrupted; a silence and a late landing are interruptions too. Most mistakes
need few of them. ``python -m tests.binding.test_interleavings 3`` allows three in each run, and takes minutes.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from extender.binding.records import PAUSE
from extender.core.errors import GpuExtenderError, Unavailable
from extender.embedded import EmbeddedCluster
from tests.binding.world import CALLS, Process, shared_cluster, violations
from tests.builders import PodBuilder, make_node, make_pod
from tests.virtual_time import VirtualTime

CARD = 1000
#: Virtual seconds in which everybody does what he can without an answer, the pause between two PUTs included.
MOMENT = 1.2 * PAUSE
LONG = 10.0
Pod = dict[str, Any]
Request = Callable[[], Awaitable[Any]]


class Turns:
    """Requests wait here until they are chosen."""

    def __init__(self, choices: Sequence[int], interruptions: int) -> None:
        self._choices = choices
        #: How many more there may be.
        self._interruptions = interruptions
        self._last = ""
        self._waiting: dict[str, tuple[str, asyncio.Future[bool]]] = {}
        self._late: list[tuple[str, Request]] = []
        #: For each choice so far: which it was, of how many, and in words.
        self.taken: list[tuple[int, int, str]] = []

    async def answered(self, who: str, what: str) -> bool:
        """Wait for the turn; False: there will be no answer, and the request may land later."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
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
            yield f"{key} {self._waiting[key][0]}", partial(self._answer, key, True)
        for late in self._late:
            yield f"late {late[0]}", partial(self._land, late)
        for key in waiting:
            yield f"{key} {self._waiting[key][0]}: no answer", partial(self._answer, key, False)

    async def _answer(self, key: str, answered: bool) -> None:
        self._last = key[0]
        self._waiting.pop(key)[1].set_result(answered)

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
        if await self._turns.answered(self._who, name):
            return await request(*arguments)
        self._turns.is_late(f"{self._who} {name}", partial(request, *arguments))
        raise Unavailable("no answer in time")


class Scene:
    """What the two extenders find, and what each is to do."""

    def __init__(self, before: Sequence[PodBuilder], waiting: Sequence[PodBuilder], gpus: int = 1) -> None:
        self.before = before
        self.waiting = waiting
        self.gpus = gpus

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        """What that extender does."""
        await process.bind(pods[number % len(pods)], "n")


class CloseOrBind(Scene):
    """The first extender closes what is idle."""

    async def acts(self, number: int, process: Process, pods: Sequence[Pod]) -> None:
        if number:
            await process.bind(pods[0], "n")
        else:
            await process.reservations.close_idle("n")


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
}


async def play(scene: Scene, choices: Sequence[int], interruptions: int) -> Turns:
    """One run. The choices that were taken, in the end with those that nobody had given."""
    cluster = shared_cluster(make_node("n").gpus(scene.gpus, mib=CARD).build())
    turns = Turns(choices, interruptions)
    good = Process(cluster)
    for builder in scene.before:
        assert await good.bind(await cluster.submit(builder.build()), "n") is None
    if isinstance(scene, CloseOrBind):
        await cluster.delete_pod("default", "ends", "")
    good.die()
    pods = [await cluster.submit(builder.build()) for builder in scene.waiting]
    gates: list[Any] = [Gate(cluster, turns, who) for who in "AB"]
    tasks = [asyncio.create_task(scene.acts(n, Process(gate), pods)) for n, gate in enumerate(gates)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(MOMENT)
        if not await turns.choose():
            await asyncio.sleep(LONG)
        assert violations(cluster, CARD, scene.gpus) == [], turns
    await asyncio.gather(*tasks)
    await _afterwards(scene, cluster, turns, pods)
    return turns


async def _afterwards(scene: Scene, cluster: EmbeddedCluster, turns: Turns, pods: Sequence[Pod]) -> None:
    """A third extender goes on, with its background work; then the rest lands. What fits runs in the end."""
    last = Process(cluster)
    for _ in range(2):
        for pod in pods:
            await last.bind(pod, "n")
            assert violations(cluster, CARD, scene.gpus) == [], turns
        await turns.land_all()
        assert violations(cluster, CARD, scene.gpus) == [], turns
        # The background work ends what was interrupted: entries that nobody answers for, closes.
        for _ in range(3):
            await last.reconciler.once()
            last.now += 30
        assert violations(cluster, CARD, scene.gpus) == [], turns
    last.decisions.ledger.check()
    assert any((cluster.find("default", pod["metadata"]["name"]) or pod)["spec"].get("nodeName") for pod in pods), turns


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


@pytest.mark.parametrize("name", SCENES)
def test_every_order(name: str) -> None:
    """No device is given out twice, and what fits runs in the end, whoever is interrupted, unheard or late."""
    assert every_run(SCENES[name], interruptions=2) > 10


if __name__ == "__main__":
    for scene_name, scene in SCENES.items():
        print(f"{scene_name}: {every_run(scene, int(sys.argv[1]))} runs")
