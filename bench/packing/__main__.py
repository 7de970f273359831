"""Replay openb traces and print tables.

    python -m bench.packing DIRECTORY [--trace default,gpushare40] [--seed 42] [--strategy fgd,adaptive]
    python -m bench.packing DIRECTORY --departures [--load 0.9,1.0,1.1] [--lifetimes 8]
    python -m bench.packing DIRECTORY --http
    python -m bench.packing DIRECTORY --plot docs/packing.svg

DIRECTORY holds openb_node_list_gpu_node.csv and openb_pod_list_<trace>.csv, as published, and for runs in the paper's
orders arrivals/<trace>-<seed>.txt and arrivals/<trace>-<seed>-nodes.txt, names one after the other.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from bench.packing import departures
from bench.packing.curve import allocation
from bench.packing.http import replay_over_http
from bench.packing.openb import Trace
from bench.packing.plot import draw
from bench.packing.reading import read_trace
from bench.packing.replay import ALL, BESTFIT, Cluster, replay, replay_on
from extender.core.errors import InputError
from extender.core.strategies import STRATEGIES

T = TypeVar("T")
TRACES = "default,gpushare40,multigpu20,gpuspec10,cpu100"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.packing", description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trace", type=_each(str), default=TRACES)
    parser.add_argument("--seed", type=_each(_seed), default="42,43,44")
    parser.add_argument("--strategy", type=_each(_strategy), help="all of them, unless told otherwise")
    parser.add_argument("--load", type=_each(_amount), default="0.9,1.0,1.1")
    parser.add_argument(
        "--lifetimes", type=_amount, default=departures.LIFETIMES, help="how long they are measured, in mean lifetimes"
    )
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--departures", action="store_true", help="pods come and go")
    ways.add_argument("--http", action="store_true", help="the same through HTTP, and compare every placement")
    ways.add_argument("--plot", type=_picture, help="draw the first trace and seed, allocation over arrivals")
    options = parser.parse_args()
    strategies = options.strategy or list(STRATEGIES if options.http else ALL)
    if options.http and BESTFIT in strategies:
        parser.error(f"{BESTFIT} is a part of this benchmark only, not of the service")
    try:
        _measure(options, strategies)
    except InputError as error:
        parser.exit(2, f"bench.packing: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130)


def _measure(options: argparse.Namespace, strategies: list[str]) -> None:
    traces = [(name, seed) for name in options.trace for seed in options.seed]
    if options.plot is not None:
        draw(_ordered(options.directory, *traces[0]), traces[0], strategies, options.plot)
        return
    print(_HEADS["departures" if options.departures else "http" if options.http else "fill"])
    for name, seed in traces:
        trace = (read_trace if options.departures else _ordered)(options.directory, name, seed)
        for strategy in strategies:
            start = f"| {name} | {seed} | {strategy} | "
            if options.departures:
                for load in options.load:
                    found = departures.run(trace, strategy, load, seed, options.lifetimes)
                    print(f"{start}{load} | {_rejected(found)}", flush=True)
            elif options.http:
                print(start + _http(trace, strategy), flush=True)
            else:
                print(start + _fill(trace, strategy), flush=True)


def _ordered(directory: Path, name: str, seed: int) -> Trace:
    """Says so if the order in which pods arrive is not the paper's."""
    trace = read_trace(directory, name, seed)
    if trace.drawn:
        print(f"{name}-{seed}: no arrivals/{name}-{seed}.txt: pods are drawn by the seed", file=sys.stderr)
    return trace


def _each(of: Callable[[str], T]) -> Callable[[str], list[T]]:
    """An option of several values, with commas between them."""
    return lambda text: [of(part) for part in text.split(",")]


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _amount(text: str) -> float:
    with suppress(ValueError):
        if 0.01 <= float(text) <= 100:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.01 to 100")


def _picture(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in a folder that exists")
    return path


def _strategy(text: str) -> str:
    if text not in ALL:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(ALL)}")
    return text


_HEADS = {
    "fill": "| trace | seed | strategy | alloc@100 | alloc@130 | pods per CPU second |\n"
    "| --- | --- | --- | --- | --- | --- |",
    "departures": "| trace | seed | strategy | load | allocation % | rejected GPUs % | rejected pods of >= 4 GPUs % |\n"
    "| --- | --- | --- | --- | --- | --- | --- |",
    "http": "| trace | seed | strategy | alloc@100 | alloc@130 | other placements than in process | pods/s |"
    "\n| --- | --- | --- | --- | --- | --- | --- |",
}


def _fill(trace: Trace, strategy: str) -> str:
    cluster = Cluster(trace, strategy)
    gc.freeze()  # As `serve` does once the objects are loaded.
    placed = list(replay_on(cluster, trace))
    curve = allocation(placed, trace.capacity)
    speed = f"{len(placed) / cluster.seconds:.0f}" if cluster.seconds else "-"  # Nothing passed kube-scheduler's rules.
    return f"{_at(curve, 100)} | {_at(curve, 130)} | {speed} |"


def _rejected(found: departures.Outcome) -> str:
    return f"{found.allocation:.2f} | {found.rejected_demand:.2f} | {found.rejected_large:.2f} |"


def _http(trace: Trace, strategy: str) -> str:
    start = time.perf_counter()
    placed = list(replay_over_http(trace, strategy))
    seconds = time.perf_counter() - start
    others = sum(one != other for one, other in zip(placed, replay(trace, strategy, as_published=False), strict=True))
    curve = allocation(placed, trace.capacity)
    return f"{_at(curve, 100)} | {_at(curve, 130)} | {others} | {len(placed) / seconds:.0f} |"


def _at(curve: dict[int, float], percent: int) -> str:
    """A dash where no pod arrived at just that percent: in a small cluster one asks for several at once."""
    return f"{curve[percent]:.2f}" if percent in curve else "-"


if __name__ == "__main__":
    main()
