"""``gpu-extender simulate``: what would happen, without touching anything."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from extender.cli.tables import console, emit, gib, plain, table
from extender.config import Settings
from extender.core.inspect import picture
from extender.core.names import STRATEGIES
from extender.service import Service, embedded_service
from extender.simulator import Cycle, InProcess, Outcome, pending
from extender.snapshot import load_pods, load_snapshot, with_pods
from extender.verbs import Verbs


@click.command(epilog="Example: gpu-extender simulate --snapshot cluster.yaml new-pods.yaml --strategy spread")
@click.argument("pods", nargs=-1, type=click.Path(path_type=Path), metavar="[PODS.yaml ...]")
@click.option("--snapshot", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="the cluster, as `kubectl get nodes,pods -A -o yaml` prints it")  # fmt: skip
@click.option("--strategy", type=click.Choice(STRATEGIES), help="how pods are placed  [default: the service's]")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
              help="how to print it")  # fmt: skip
def simulate(pods: tuple[Path, ...], snapshot: Path, strategy: str | None, output: str) -> None:
    """Schedule the snapshot's pending pods, and those of PODS.yaml, without touching anything."""
    cluster = load_snapshot(snapshot)
    for path in pods:
        cluster = with_pods(cluster, load_pods(path), source=str(path))
    settings = Settings(strategy=strategy) if strategy else Settings()  # type: ignore[arg-type]
    service = embedded_service(settings, cluster)
    outcomes = asyncio.run(run(service))
    after = picture(list(service.decisions.ledger.snapshot()))
    result = {"pods": [asdict(outcome) for outcome in outcomes], "totals": after["totals"], "nodes": after["nodes"]}
    if not emit(result, output):
        print_outcomes(outcomes, after)
    if any(outcome.node is None for outcome in outcomes):
        sys.exit(1)


async def run(service: Service) -> list[Outcome]:
    """Play kube-scheduler for every pending pod, with a progress bar on long runs."""
    cluster = service.cluster
    cycle = Cycle(InProcess(Verbs(service), cluster.get_pod), cluster.nodes.values(), cluster.pods())
    waiting = pending(cluster.pods())
    outcomes: list[Outcome] = []
    with Progress(console=_progress_console(), transient=True, disable=len(waiting) < 200) as progress:
        task = progress.add_task("scheduling", total=len(waiting))
        async for outcome in cycle.place_all(waiting):
            outcomes.append(outcome)
            progress.advance(task)
    return outcomes


def print_outcomes(outcomes: Sequence[Outcome], after: Any) -> None:
    """Who landed where, what that uses, and what does not fit and why."""
    out = console()
    placed = [outcome for outcome in outcomes if outcome.node is not None]
    if placed:
        shown = table("POD", "NODE", "GPU", "MiB EACH", numbers=("MiB EACH",))
        for outcome in placed:
            devices = "\n".join(device[:12] for device in outcome.devices)
            shown.add_row(
                *map(plain, (f"{outcome.namespace}/{outcome.name}", outcome.node, devices, outcome.memory_mib))
            )
        out.print(shown)
    for outcome in outcomes:
        if outcome.node is None:
            why = "; ".join(f"{reason} ({count} nodes)" for reason, count in outcome.reasons.items())
            out.print(plain(f"waits: {outcome.namespace}/{outcome.name}: {why or 'the cluster has no node'}"))
        for rule in outcome.not_applied:
            out.print(plain(f"not applied: {outcome.namespace}/{outcome.name}: {rule}"))
    totals = after["totals"]
    shared = sum(len(node["sharedGpus"]) for node in after["nodes"])
    whole = sum(node["wholeGpusHeld"] for node in after["nodes"])
    out.print(
        f"\n{len(placed)} of {len(outcomes)} pods placed; {shared} GPUs shared and {whole} held whole of "
        f"{totals['gpus']}; {gib(totals['usedMiB'])} of {gib(totals['memoryMiB'])} GiB held"
    )


def _progress_console() -> Any:
    from rich.console import Console  # noqa: PLC0415 - only long runs draw

    return Console(stderr=True)
