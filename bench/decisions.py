"""Latency of filter, prioritize and bind as ratios to a parse-and-echo route, the cost of a rebuild and of a list.

Each figure and its yardstick are measured in turn, call by call, over keep-alive connections on loopback.

    python -m bench.decisions [--nodes 500,1000,5000] [--rounds 200]
"""

import argparse
import http.client
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles

import orjson

from bench.clusters import node_name, pod_body
from bench.listing import measure_listing
from bench.rebuild import measure_rebuild
from bench.refresh import measure_refresh
from extender.core import names


@dataclass
class Times:
    """Seconds per call."""

    values: list[float]

    @property
    def p50(self) -> float:
        return median(self.values)

    @property
    def p99(self) -> float:
        return quantiles(self.values, n=100)[98]

    @property
    def spread(self) -> float:
        """How much longer the slow calls take than the usual ones."""
        return self.p99 / self.p50


class Caller:
    """One keep-alive connection, as kube-scheduler holds."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def post(self, path: str, body: bytes) -> bytes:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status in (200, 201), answer[:200]
        return answer


@contextmanager
def server(*arguments: str) -> Iterator[Caller]:
    """One of ``bench.servers`` in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.servers", *arguments[:3], str(port), *arguments[3:]]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Caller(port)
    finally:
        process.terminate()
        process.wait()


def timed(caller: Caller, path: str, body: bytes) -> tuple[float, bytes]:
    start = time.perf_counter()
    answer = caller.post(path, body)
    return time.perf_counter() - start, answer


def measure(nodes: int, fill: float, rounds: int, strategy: str) -> dict[str, Times]:
    """One pod after another: echo, filter, prioritize, bind; every bind changes one node."""
    node_names = [node_name(i) for i in range(nodes)]
    found: dict[str, list[float]] = {"echo": [], "filter": [], "prioritize": [], "bind": []}
    with server("echo", "0", "0") as echo, server("extender", str(nodes), str(fill), strategy) as extender:
        for index in range(rounds + 20):
            body = pod_body(index, node_names)
            pod = orjson.loads(body)["Pod"]
            extender.post("/embedded/pods", orjson.dumps(pod))
            took = {"echo": timed(echo, "/echo", body)[0]}
            took["filter"], answer = timed(extender, "/scheduler/filter", body)
            passed = orjson.loads(answer)["NodeNames"]
            took["prioritize"], scores = timed(extender, "/scheduler/prioritize", pod_body(index, passed))
            best = max(orjson.loads(scores), key=lambda entry: entry["Score"])["Host"]
            bind = {
                "PodName": pod["metadata"]["name"],
                "PodNamespace": "bench",
                "PodUID": pod["metadata"]["uid"],
                "Node": best,
            }
            took["bind"], answer = timed(extender, "/scheduler/bind", orjson.dumps(bind))
            assert orjson.loads(answer) == {"Error": ""}, answer
            if index >= 20:
                for verb, seconds in took.items():
                    found[verb].append(seconds)
    return {verb: Times(values) for verb, values in found.items()}


def main() -> None:
    """Print the table of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="500,1000,5000")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--strategy", default=names.DEFAULT_STRATEGY)
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}; "
          f"strategy {options.strategy}, {options.rounds} pods each; medians in ms, (p99); ratios to echo")  # fmt: skip
    print("| nodes | GPUs full | echo | filter | prioritize | bind | filter / echo | filter + prioritize / echo "
          "| p99 / p50 of echo | of filter |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for nodes in map(int, options.nodes.split(",")):
        for fill in (0.0, 0.5):
            times = measure(nodes, fill, options.rounds, options.strategy)
            cells = [f"{t.p50 * 1000:.2f} ({t.p99 * 1000:.2f})" for t in times.values()]
            echo = times["echo"].p50
            both = (times["filter"].p50 + times["prioritize"].p50) / echo
            ratios = (times["filter"].p50 / echo, both, times["echo"].spread, times["filter"].spread)
            print(f"| {nodes} | {fill:.0%} | {' | '.join(cells)} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |",
                  flush=True)  # fmt: skip
    print()
    print(measure_refresh(5000))
    print(measure_rebuild(50_000), flush=True)
    print(measure_listing())


if __name__ == "__main__":
    main()
