"""What the admission policies cost: requests to an API server that has them, as ratios to the same to one without.

Both run side by side and are asked in turn, call by call. What other work on the machine does to the clock, it does
less to the CPU time that each API server uses.

    python -m bench.admission [--rounds 300]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Final

from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.policies import install

Json = dict[str, Any]
WARM_UP: Final = 20


def annotated(pod: PodBuilder) -> PodBuilder:
    """As pods of real clusters are: thirty annotations, one of them long."""
    for number in range(29):
        pod.annotation(f"example.com/number-{number}", str(number))
    return pod.annotation("kubectl.kubernetes.io/last-applied-configuration", json.dumps({"x": "y" * 4000}))


async def create(client: Client, pod: PodBuilder) -> None:
    """A pod, created and stored."""
    await client.create_pod(pod.build())


async def report_status(client: Client, name: str) -> None:
    """What a kubelet does all day."""
    condition = {"type": "Ready", "status": "True", "lastProbeTime": None, "message": str(time.monotonic_ns())}
    body = {"status": {"conditions": [condition]}}
    await client.patch(f"/api/v1/namespaces/default/pods/{name}/status", body)


Work = Callable[[Client, int], Awaitable[None]]
WORK: Final[dict[str, Work]] = {
    "create a pod": lambda c, n: create(c, make_pod(f"plain-{n}")),
    "create a pod with 30 annotations": lambda c, n: create(c, annotated(make_pod(f"annotated-{n}"))),
    "create a whole-GPU pod": lambda c, n: create(c, make_pod(f"whole-{n}").gpus(1)),
    "patch the status of a pod": lambda c, n: report_status(c, f"annotated-{n % WARM_UP}"),
    "create a pod with a share": lambda c, n: create(c, make_pod(f"share-{n}").gpu_fraction("0.5")),
}


async def timed(work: Awaitable[None]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


@dataclass(frozen=True, slots=True)
class Side:
    """One API server under measurement."""

    plane: ControlPlane
    client: Client
    #: Milliseconds of each call.
    times: list[float] = field(default_factory=list)
    #: Milliseconds of its CPU for each call, itself and what it does beside.
    cpu: list[float] = field(default_factory=list)

    def cpu_milliseconds(self) -> float:
        """Of CPU that it has used so far."""
        return self.plane.apiserver.cpu_seconds() * 1000


async def measure(work: Work, sides: tuple[Side, Side], rounds: int) -> None:
    """Who comes first alternates."""
    for number in range(WARM_UP):
        for side in sides:
            await work(side.client, number)
    before = [side.cpu_milliseconds() for side in sides]
    for number in range(WARM_UP, WARM_UP + rounds):
        for side in sides if number % 2 else reversed(sides):
            side.times.append(await timed(work(side.client, number)))
    for side, used in zip(sides, before, strict=True):
        side.cpu.append((side.cpu_milliseconds() - used) / rounds)


def row(name: str, without: Side, having: Side) -> str:
    """One line of the table: median, 99th percentile and CPU, each without, with and as a ratio."""
    cells = [name]
    for figure in (median, lambda times: quantiles(times, n=100)[98]):
        cells += _compared(figure(without.times), figure(having.times))
    return "| " + " | ".join([*cells, *_compared(*without.cpu, *having.cpu)]) + " |"


def _compared(without: float, having: float) -> list[str]:
    return [f"{without:.2f}", f"{having:.2f}", f"{having / without:.2f}"]


async def main(rounds: int) -> None:
    """Print the table of docs/performance.md."""
    with ControlPlane() as bare, ControlPlane() as policed:
        install(policed)
        async with Client(bare) as first, Client(policed) as second:
            print(
                "| | p50 without, ms | with | ratio | p99 without, ms | with | ratio | CPU without, ms | with | ratio |"
            )
            print("|" + "---|" * 10)
            for name, work in WORK.items():
                sides = (Side(bare, first), Side(policed, second))
                await measure(work, sides, rounds)
                print(row(name, *sides), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="calls of each kind")
    asyncio.run(main(parser.parse_args().rounds))
