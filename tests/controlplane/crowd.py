"""Pods of random sizes, whole and fractional, that come and go: the same for the same seed."""

from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Final, TypeVar

from tests.builders import PodBuilder, make_pod
from tests.controlplane.scene import Scene

_T = TypeVar("_T")
_FRACTIONS: Final = ("0.1", "0.2", "0.25", "0.33", "0.5", "0.5", "0.75", "0.9")


class Crowd:
    """Users who submit and delete. 15 of 100 pods ask for whole GPUs."""

    def __init__(self, scene: Scene, seed: int, *, prefix: str = "c", scheduler: str = "gpu-scheduler") -> None:
        self._scene = scene
        self._random = Random(seed)
        self._numbers = count()
        self._prefix = prefix
        self._scheduler = scheduler

    async def come(self, number: int) -> list[str]:
        """So many new pods at once; their names."""
        pods = [self._pod() for _ in range(number)]
        await self._scene.submit(*pods)
        return [pod.build()["metadata"]["name"] for pod in pods]

    async def go(self, number: int) -> None:
        """So many of those that are there are deleted, running or not."""
        there = sorted(self._scene.submitted)
        await self._scene.delete(*self._random.sample(there, min(number, len(there))))

    def moment(self, longest: float) -> float:
        """Seconds until something happens."""
        return self._random.uniform(0, longest)

    def _pod(self) -> PodBuilder:
        pod = make_pod(f"{self._prefix}{next(self._numbers)}").spec(schedulerName=self._scheduler)
        kind = self._random.randrange(100)
        if kind < 15:
            return pod.gpus(self._one_of((1, 1, 2)))
        if kind < 60:
            pod.gpu_fraction(self._one_of(_FRACTIONS))
        else:
            pod.gpu_memory(self._random.randrange(500, 30_000))
        return pod.num_devices(2) if self._random.random() < 0.15 else pod

    def _one_of(self, choices: Sequence[_T]) -> _T:
        return self._random.choice(choices)
