"""``make run``: serve the embedded cluster and play kube-scheduler for its pending pods, over HTTP.

The service runs as a process of its own, as it would beside kube-scheduler. This program prints who landed on which GPU
and why the rest wait, then leaves the service running until Ctrl-C.
"""

import argparse
import asyncio
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from extender.cli.simulate import print_outcomes
from extender.cli.source import DEFAULT_SERVER
from extender.cli.tables import console
from extender.core.errors import GpuExtenderError
from extender.simulator import Cycle, pending
from extender.snapshot import load_snapshot

START_SECONDS = 30.0
STOP_SECONDS = 20.0
#: After each filter call: by then what it taught is known, so that every run ends as ``simulate`` does.
LEARNING_SECONDS = 0.1


class OverHttp:
    """The extender as kube-scheduler reaches it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, verb: str, body: dict[str, Any]) -> Any:
        """POST to a verb."""
        response = await self._client.post(f"/scheduler/{verb}", json=body)
        if verb == "filter":
            await asyncio.sleep(LEARNING_SECONDS)
        return response.raise_for_status().json()

    async def pod(self, namespace: str, name: str) -> dict[str, Any]:
        """The pod as the embedded cluster holds it."""
        response = (await self._client.get(f"/embedded/pods/{namespace}/{name}")).raise_for_status()
        found: dict[str, Any] = response.json()
        return found


def main() -> int:
    """Run until Ctrl-C; the exit status of the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snapshot", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--once", action="store_true", help="stop when all pods are dealt with")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    if _answers(options.port):
        print(f"gpu-extender: port {options.port} is in use: stop what listens there", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "extender", "serve", "--snapshot", str(options.snapshot)]
    service = subprocess.Popen([*command, "--port", str(options.port), "--log-level", "warning"])
    # SIGTERM ends both; Ctrl-C reaches the service by itself.
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    try:
        if not _wait_until_ready(url, service):
            return service.wait(STOP_SECONDS)
        asyncio.run(_play(url, options.snapshot))
        if options.once:
            service.terminate()
        return max(0, service.wait())
    except KeyboardInterrupt:
        return max(0, service.wait(STOP_SECONDS))
    except GpuExtenderError as error:
        print(f"gpu-extender: {error}", file=sys.stderr)
        return 2
    except httpx.TransportError as error:
        print(f"gpu-extender: the service on {url} does not answer any more: {error}", file=sys.stderr)
        return 1
    finally:
        service.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_ready(url: str, service: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + START_SECONDS
    while service.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return service.poll() is None
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


async def _play(url: str, path: Path) -> None:
    snapshot = load_snapshot(path)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        cycle = Cycle(OverHttp(client), snapshot.nodes, snapshot.pods)
        outcomes = [outcome async for outcome in cycle.place_all(pending(snapshot.pods))]
        after = (await client.get("/inspect")).json()
    print_outcomes(outcomes, after)
    server = "" if url == DEFAULT_SERVER else f" --server {url}"
    console().print(
        f"\nserving on {url}: try\n"
        f"  .venv/bin/gpu-extender inspect{server}\n"
        f"  .venv/bin/gpu-extender explain team-foundation/pretrain-next-0{server}\n"
        "Ctrl-C stops it."
    )


if __name__ == "__main__":
    sys.exit(main())
