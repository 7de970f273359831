"""``gpu-extender simulate``: what would happen, without touching anything."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.progress import Progress
from rich.table import Table

from extender.cli.tables import Name, console, counted, emit, gib, plain, show, table
from extender.config import Settings
from extender.core.inspect import picture
from extender.core.names import DEFAULT_STRATEGY, STRATEGIES
from extender.service import Service, embedded_service
from extender.simulator import Cycle, InProcess, Outcome, pending
from extender.snapshot import load_pods, load_snapshot, with_pods
from extender.verbs import Verbs


@click.command(epilog="Example: gpu-extender simulate --snapshot cluster.yaml new-pods.yaml --strategy spread")
@click.argument("pods", nargs=-1, type=click.Path(path_type=Path), metavar="[PODS.yaml ...]")
@click.option("--snapshot", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="the cluster, as `kubectl get nodes,pods -A -o yaml` prints it")  # fmt: skip
@click.option("--strategy", type=click.Choice(STRATEGIES), default=DEFAULT_STRATEGY, show_default=True,
              help="how pods are placed")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True,
              help="how to print it")  # fmt: skip
def simulate(pods: tuple[Path, ...], snapshot: Path, strategy: str, output: str) -> None:
    """Schedule the snapshot's pending pods, and those of PODS.yaml, without touching anything."""
    cluster = load_snapshot(snapshot)
    for path in pods:
        cluster = with_pods(cluster, load_pods(path), source=str(path))
    service = embedded_service(Settings(strategy=strategy), cluster)
    outcomes = asyncio.run(run(service))
    after = picture(list(service.decisions.ledger.snapshot()))
    result = {"pods": [outcome.as_json() for outcome in outcomes], "totals": after["totals"], "nodes": after["nodes"]}
    if not emit(result, output):
        print_outcomes(outcomes, after)
    if any(outcome.node is None for outcome in outcomes):
        sys.exit(1)


async def run(service: Service) -> list[Outcome]:
    """Play kube-scheduler for every pending pod, with a progress bar on long runs."""
    cluster = service.embedded
    assert cluster is not None, "made from a snapshot"
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
    parts: list[RenderableType] = []
    placed = [outcome for outcome in outcomes if outcome.node is not None]
    if placed:
        parts += [_placed_table(placed), plain("")]
    for outcome in outcomes:
        parts += _told(outcome)
    show(console(), *parts, plain(_totals(outcomes, after)))


def _placed_table(placed: Sequence[Outcome]) -> Table:
    shown = table("POD", "NODE", "GPU", "MiB EACH", numbers=("MiB EACH",))
    for outcome in placed:
        devices = "\n".join(device[:12] for device in outcome.devices) or "-"
        name = Name(f"{outcome.namespace}/{outcome.name}")
        shown.add_row(name, Name(outcome.node or ""), plain(devices), plain(outcome.memory_mib))
    return shown


def _told(outcome: Outcome) -> list[RenderableType]:
    """Why a pod waits, and which of its rules nobody looked at."""
    lines: list[RenderableType] = []
    pod = f"{outcome.namespace}/{outcome.name}"
    if outcome.node is None:
        lines.append(plain(f"{pod} waits:"))
        lines.append(counted(outcome.reasons) if outcome.reasons else plain("  the cluster has no node"))
    if outcome.not_applied:
        lines.append(plain(f"{pod}: not looked at here: {', '.join(outcome.not_applied)}"))
    return [*lines, plain("")] if lines else []


def _totals(outcomes: Sequence[Outcome], after: Any) -> str:
    totals, nodes = after["totals"], after["nodes"]
    waiting = sum(outcome.node is None for outcome in outcomes)
    shared = sum(len(node["sharedGpus"]) for node in nodes)
    whole = sum(node["wholeGpusHeld"] for node in nodes)
    return (
        f"{len(outcomes) - waiting} of {len(outcomes)} pods placed, {waiting} wait\n"
        f"{totals['gpus']} GPUs: {shared} shared, {whole} held whole; "
        f"{gib(totals['usedMiB'])} of {gib(totals['memoryMiB'])} GiB held"
    )


def _progress_console() -> Any:
    from rich.console import Console  # noqa: PLC0415 - only long runs draw

    return Console(stderr=True)
