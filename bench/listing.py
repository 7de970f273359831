"""Time and memory until an extender that starts is in step with a large cluster, and how long it is deaf meanwhile.

    python -m bench.listing [PODS [NODES]]

The API server is played over HTTP; it runs beside the extender, so both share the machine.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.api_server import ApiServer
from extender import logs
from extender.cluster import PAGE_SIZE
from extender.config import Settings
from extender.core.decisions import at_once
from extender.live.service import live_service
from extender.service import Service

PODS, NODES = 100_000, 5_000


@dataclass(frozen=True, slots=True)
class Listed:
    """Seconds and MB."""

    seconds: float
    #: CPU of the extender until then, and what parsing the same answers alone takes.
    cpu: float
    parse_cpu: float
    stall: float
    stall_after: float
    resident_mb: float
    peak_mb: float
    found: str


class Heartbeat:
    """How late a task of the loop is that wants to run all the time."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.longest = max(self.longest, now - before - 0.001)
            before = now


async def _listed(kubeconfig: Path) -> Listed:
    heartbeat = Heartbeat()
    beating = asyncio.create_task(heartbeat.run())
    began, cpu = time.perf_counter(), time.process_time()
    async with live_service(Settings(kubeconfig=kubeconfig), at_once) as service:
        while service.not_ready() is not None:  # noqa: ASYNC110 - as a probe asks
            await asyncio.sleep(0.01)
        seconds, cpu, stall = time.perf_counter() - began, time.process_time() - cpu, heartbeat.longest
        heartbeat.longest = 0.0
        await asyncio.sleep(5)  # What is done once everything is listed.
        beating.cancel()
        resident, peak = _memory("VmRSS"), _memory("VmHWM")
        pods = len(tuple(service.view.pods()))
        parse = _parse_cpu(pods, len(service.view.nodes))
        result = Listed(seconds, cpu, parse, stall, heartbeat.longest, resident, peak, await _found(service))
        with suppress(asyncio.CancelledError):
            await beating
    return result


async def _found(service: Service) -> str:
    states = list(service.decisions.ledger.snapshot())
    shares = sum(len(gpu.shares) for state in states for gpu in state.gpus)
    wrong = len(await service.differences())
    return f"{len(states)} nodes, {len(tuple(service.view.pods()))} pods, {shares} shares, {wrong} differences"


def _parse_cpu(pods: int, nodes: int) -> float:
    """Seconds of CPU to parse such lists; measured on some pages, each dropped at once."""
    server = ApiServer(pods, nodes)
    took = 0.0
    for collection, total in (("pods", pods), ("nodes", nodes)):
        pages = [server.page(collection, start, PAGE_SIZE) for start in range(0, total, max(PAGE_SIZE, total // 10))]
        began = time.process_time()
        for page in pages:
            orjson.loads(page)
        took += (time.process_time() - began) * total / (len(pages) * PAGE_SIZE)
    return took


def _memory(kind: str) -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind)]
    return int(line.split()[1]) / 1000


def _run(url: str) -> Listed:
    logs.configure("error")
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        named = {"cluster": {"server": url}, "user": {"token": "t"}, "context": {"cluster": "c", "user": "c"}}
        lists = {f"{kind}s": [{"name": "c", kind: content}] for kind, content in named.items()}
        kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "c", **lists}))
        return asyncio.run(_listed(kubeconfig))


def _wait_for(port: int) -> None:
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def measure_listing(pods: int = PODS, nodes: int = NODES) -> str:
    """One line; the extender in a fresh process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "bench.api_server", str(port), str(pods), str(nodes)])
    try:
        _wait_for(port)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            listed: Listed = pool.apply(_run, (f"http://127.0.0.1:{port}",))
    finally:
        server.kill()
        server.wait()
    return (
        f"list of {listed.found}: in step after {listed.seconds:.1f} s and {listed.cpu:.1f} s of CPU, "
        f"{listed.cpu / listed.parse_cpu:.1f} × parsing the same JSON ({listed.parse_cpu:.1f} s); "
        f"{listed.resident_mb:.0f} MB resident (at most {listed.peak_mb:.0f} MB); "
        f"the loop was held up for {listed.stall * 1000:.0f} ms at most, {listed.stall_after * 1000:.0f} ms afterwards"
    )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pods", nargs="?", type=int, default=PODS)
    parser.add_argument("nodes", nargs="?", type=int, default=NODES)
    chosen = parser.parse_args()
    print(measure_listing(chosen.pods, chosen.nodes))


if __name__ == "__main__":
    main()
