"""What the admission policies cost: requests to an API server that has them, as ratios to the same to one without.

A third server has none either. What it differs by from the first is what the measurement cannot tell from nothing: a
ratio of the policies within that range is not measurable. All three run side by side and are asked in turn, call by
call. What other work on the machine does to the clock, it does less to the CPU time that each API server uses.

With ``--least`` the third server has the two policies without which nobody can do what ours do: one that could add to
a pod, one that could refuse it, and no more in them than a look for one annotation.

    python -m bench.admission [--blocks 10] [--rounds 60] [--least]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from statistics import median
from typing import Any, Final

from tests.builders import PodBuilder, make_pod
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.in_force import wait_until_in_force
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


def install_least(plane: ControlPlane) -> None:
    """A mutating and a validating policy that look at each pod that is created, and find nothing to do."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    looks = "has(object.metadata.annotations) && 'example.com/never' in object.metadata.annotations"
    found = {
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "asks", "expression": looks}],
        "failurePolicy": "Fail",
    }
    patch = "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'seen': 'yes'}}]"
    mutates = {"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]}
    specs = {
        "MutatingAdmissionPolicy": found | mutates | {"reinvocationPolicy": "Never"},
        "MutatingAdmissionPolicyBinding": {"policyName": "least"},
        "ValidatingAdmissionPolicy": found | {"validations": [{"expression": "false"}]},
        "ValidatingAdmissionPolicyBinding": {"policyName": "least", "validationActions": ["Deny"]},
    }
    version = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "least"}}
    items = [{**version, "kind": kind, "spec": spec} for kind, spec in specs.items()]
    plane.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    wait_until_in_force(plane)


async def timed(work: Awaitable[None]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


@dataclass(frozen=True, slots=True)
class Side:
    """One API server under measurement; a figure for each block of calls."""

    plane: ControlPlane
    client: Client
    #: Milliseconds: the median of a block's calls.
    times: list[float] = field(default_factory=list)
    #: Milliseconds of its CPU for each call, itself and what it does beside.
    cpu: list[float] = field(default_factory=list)

    def cpu_milliseconds(self) -> float:
        """Of CPU that it has used so far."""
        return self.plane.apiserver.cpu_seconds() * 1000


async def block(work: Work, sides: Sequence[Side], numbers: range) -> None:
    """One call of each number to each server, in every order of the servers."""
    orders = list(permutations(range(len(sides))))
    before = [side.cpu_milliseconds() for side in sides]
    times: list[list[float]] = [[] for _ in sides]
    for number in numbers:
        for at in orders[number % len(orders)]:
            times[at].append(await timed(work(sides[at].client, number)))
    for side, used, taken in zip(sides, before, times, strict=True):
        side.times.append(median(taken))
        side.cpu.append((side.cpu_milliseconds() - used) / len(numbers))


async def measure(work: Work, sides: Sequence[Side], blocks: int, rounds: int) -> None:
    """``blocks`` blocks of ``rounds`` calls to each server."""
    for number in range(WARM_UP):
        for side in sides:
            await work(side.client, number)
    for start in range(WARM_UP, WARM_UP + blocks * rounds, rounds):
        await block(work, sides, range(start, start + rounds))


def row(name: str, without: Side, again: Side, having: Side) -> str:
    """One line of the table: time and CPU, each without, with, and the ratios of the blocks."""
    cells = [name]
    for base, same, more in ((without.times, again.times, having.times), (without.cpu, again.cpu, having.cpu)):
        cells += [f"{median(base):.2f}", f"{median(more):.2f}", _ratios(base, more), _ratios(base, same)]
    return "| " + " | ".join(cells) + " |"


def _ratios(base: Sequence[float], other: Sequence[float]) -> str:
    """The median of the blocks' ratios, and the least and the largest."""
    found = sorted(more / less for less, more in zip(base, other, strict=True))
    return f"{median(found):.2f} ({found[0]:.2f}–{found[-1]:.2f})"


async def main(blocks: int, rounds: int, least: bool) -> None:
    """Print the table of docs/performance.md."""
    with ControlPlane() as first, ControlPlane() as second, ControlPlane() as policed:
        install(policed)
        if least:
            install_least(second)
        async with Client(first) as bare, Client(second) as twin, Client(policed) as having:
            ratios = f"with ÷ without | {'least' if least else 'without'} ÷ without"
            print(f"| | p50 without, ms | with | {ratios} | CPU without, ms | with | {ratios} |")
            print("|" + "---|" * 9)
            for name, work in WORK.items():
                sides = (Side(first, bare), Side(second, twin), Side(policed, having))
                await measure(work, sides, blocks, rounds)
                print(row(name, *sides), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=60, help="calls of each kind in a block")
    parser.add_argument("--least", action="store_true", help="give the third server the least policies that would do")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.blocks, arguments.rounds, arguments.least))
