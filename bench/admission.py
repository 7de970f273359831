"""What the admission policies cost: requests to an API server that has them, as ratios to the same to one without.

Both run side by side and are asked in turn, call by call.

    python -m bench.admission [--rounds 300]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
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


async def measure(work: Work, clients: tuple[Client, Client], rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each call, without and with; who comes first alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            taken = await timed(work(clients[which], number))
            if number >= WARM_UP:
                times[which].append(taken)
    return times


def row(name: str, without: list[float], having: list[float]) -> str:
    """One line of the table."""
    p99 = [quantiles(times, n=100)[98] for times in (without, having)]
    middle = [median(times) for times in (without, having)]
    return (
        f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[1] / middle[0]:.2f} "
        f"| {p99[0]:.1f} | {p99[1]:.1f} | {p99[1] / p99[0]:.2f} |"
    )


async def main(rounds: int) -> None:
    """Print the table of docs/admission.md."""
    with ControlPlane() as bare, ControlPlane() as policed:
        install(policed)
        async with Client(bare) as first, Client(policed) as second:
            print("| | p50 without, ms | with | ratio | p99 without, ms | with | ratio |")
            print("|---|---|---|---|---|---|---|")
            for name, work in WORK.items():
                print(row(name, *await measure(work, (first, second), rounds)), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="calls of each kind")
    asyncio.run(main(parser.parse_args().rounds))
