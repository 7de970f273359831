"""Replay openb traces and print tables.

    python -m bench.packing DIRECTORY [--trace default,gpushare40] [--seed 42] [--strategy fgd,adaptive]
    python -m bench.packing DIRECTORY --departures [--load 0.9,1.0,1.1] [--lifetimes 8]
    python -m bench.packing DIRECTORY --http
    python -m bench.packing DIRECTORY --plot docs/packing.svg

DIRECTORY holds openb_node_list_gpu_node.csv, openb_pod_list_<trace>.csv, arrivals/<trace>-<seed>.txt and
arrivals/<trace>-<seed>-nodes.txt.
"""

import argparse
import gc
import time
from pathlib import Path

from bench.packing import departures
from bench.packing.curve import allocation
from bench.packing.http import replay_over_http
from bench.packing.openb import Trace, read_trace
from bench.packing.plot import draw
from bench.packing.replay import ALL, Cluster, replay, replay_on

TRACES = "default,gpushare40,multigpu20,gpuspec10,cpu100"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.packing", description=__doc__.split("\n", 1)[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--trace", default=TRACES)
    parser.add_argument("--seed", default="42,43,44")
    parser.add_argument("--strategy", default=",".join(ALL))
    parser.add_argument("--load", default="0.9,1.0,1.1")
    parser.add_argument("--departures", action="store_true", help="pods come and go")
    parser.add_argument(
        "--lifetimes", type=float, default=departures.LIFETIMES, help="how long they are measured, in mean lifetimes"
    )
    parser.add_argument("--http", action="store_true", help="the same through HTTP, and compare every placement")
    parser.add_argument("--plot", type=Path, help="draw allocation over arrivals into this file")
    options = parser.parse_args()
    strategies = options.strategy.split(",")
    traces = [(name, int(seed)) for name in options.trace.split(",") for seed in options.seed.split(",")]
    if options.plot is not None:
        draw(read_trace(options.directory, *traces[0]), traces[0], strategies, options.plot)
        return
    print(_HEADS["departures" if options.departures else "http" if options.http else "fill"])
    for name, seed in traces:
        trace = read_trace(options.directory, name, seed)
        for strategy in strategies:
            start = f"| {name} | {seed} | {strategy} | "
            if options.departures:
                for load in map(float, options.load.split(",")):
                    found = departures.run(trace, strategy, load, seed, options.lifetimes)
                    print(f"{start}{load} | {_rejected(found)}", flush=True)
            elif options.http:
                print(start + _http(trace, strategy), flush=True)
            else:
                print(start + _fill(trace, strategy), flush=True)


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
    return f"{_at(curve, 100)} | {_at(curve, 130)} | {len(placed) / cluster.seconds:.0f} |"


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
    return f"{curve[percent]:.2f}" if percent in curve else "-"


if __name__ == "__main__":
    main()
