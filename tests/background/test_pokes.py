"""Pokes as the API sees them; who is poked is tests/core/test_waiting.py's."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Any

import pytest

from extender.core import names
from extender.core.errors import Conflict, NotFound, Refused, Unavailable
from extender.core.waiting import Waiting
from extender.pokes import Pokes
from tests.builders import make_pod
from tests.core.test_waiting import Scene, node, share, uid

Json = dict[str, Any]


class Api:
    """Records patches; ``errors`` are raised first, ``seconds`` is what an answer takes."""

    def __init__(self) -> None:
        self.patches: list[tuple[float, str, Json]] = []
        self.errors: list[Exception] = []
        self.seconds = 0.01
        self.bound: set[str] = set()

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Json:
        self.patches.append((asyncio.get_running_loop().time(), f"{namespace}/{name}", dict(patch)))
        await asyncio.sleep(self.seconds)
        if self.errors:
            raise self.errors.pop(0)
        return {"spec": {"nodeName": "n"} if name in self.bound else {}}

    @property
    def poked(self) -> list[str]:
        return [name for _, name, _ in self.patches]


class Stage:
    def __init__(self) -> None:
        self.scene = Scene(node())
        self.api = Api()
        loop = asyncio.get_running_loop()
        self.scene.now = 0.0
        self.pokes = Pokes(self.api, self.waiting, process="proc", clock=loop.time)
        self.task = asyncio.create_task(self.pokes.run())
        self.scene.place(share("first"))
        for name in ("a", "b"):
            self.scene.try_(share(name, 500))

    @property
    def waiting(self) -> Waiting:
        return self.scene.waiting

    def free(self) -> None:
        self.scene.end(uid("first"))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    assert not stage.task.done()
    stage.task.cancel()


async def test_a_poke_is_soon_names_the_very_pod_and_changes_it_each_time(stage: Stage) -> None:
    await asyncio.sleep(3)
    assert stage.api.patches == []
    freed = asyncio.get_running_loop().time()
    stage.free()
    await asyncio.sleep(0.5)
    assert stage.api.poked == ["default/a", "default/b"]
    assert stage.api.patches[0][0] - freed < 0.3
    stage.scene.place(share("other"))
    for name in ("a", "b"):
        stage.scene.try_(stage.scene.pods[uid(name)])
    stage.scene.end(uid("other"))
    await asyncio.sleep(2)
    metadata = [patch["metadata"] for _, _, patch in stage.api.patches]
    assert [found["uid"] for found in metadata] == [uid("a"), uid("b")] * 2
    assert len({found["annotations"][names.POKE] for found in metadata}) == 4
    assert all(set(found) == {"uid", "annotations"} and len(found["annotations"]) == 1 for found in metadata)
    assert stage.pokes.sent == 4


@pytest.mark.parametrize("error", [Unavailable("no answer"), Conflict("409")])
async def test_where_nobody_knows_it_is_tried_again_after_a_second(stage: Stage, error: Exception) -> None:
    stage.api.errors = [error, error]
    stage.free()
    await asyncio.sleep(10)
    assert stage.api.poked == ["default/a", "default/a", "default/a", "default/b"]
    times = [at for at, _, _ in stage.api.patches]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times[:3]))
    assert stage.pokes.sent == 2


@pytest.mark.parametrize("error", [NotFound("404"), Refused("422: another UID")])
async def test_a_pod_that_is_gone_is_forgotten_and_the_others_are_not(stage: Stage, error: Exception) -> None:
    stage.api.errors = [error]
    stage.free()
    await asyncio.sleep(5)
    assert stage.api.poked == ["default/a", "default/b"]
    assert uid("a") not in stage.waiting
    assert uid("b") in stage.waiting


async def test_a_pod_that_turns_out_to_be_bound_is_forgotten(stage: Stage) -> None:
    stage.api.bound = {"a"}
    stage.free()
    await asyncio.sleep(1)
    assert uid("a") not in stage.waiting


async def test_a_pod_that_finds_its_place_while_others_are_poked_is_left_alone(stage: Stage) -> None:
    stage.api.seconds = 1
    stage.free()
    await asyncio.sleep(0.5)
    assert stage.api.poked == ["default/a"]
    assert stage.scene.try_(stage.scene.pods[uid("b")]) == ["n"]
    await asyncio.sleep(5)
    assert stage.api.poked == ["default/a"]


async def test_an_api_that_is_down_is_not_hammered(stage: Stage) -> None:
    for number in range(30):
        stage.scene.try_(make_pod(f"more-{number}").gpu_memory(10).build())
    stage.api.errors = [Unavailable("refused")] * 1000
    stage.free()
    await asyncio.sleep(60)
    assert len(stage.api.patches) < 5 * 60
