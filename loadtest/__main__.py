"""``make load``: half a minute at 500 nodes, half a minute at 5,000, and a verdict."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import orjson

from bench.clusters import cluster

USERS = 8
SECONDS = 30


def main() -> int:
    """0 if both runs are good."""
    return max(run(nodes) for nodes in (500, 5000))


def run(nodes: int) -> int:
    """One run against a fresh service; the exit status of Locust."""
    with tempfile.TemporaryDirectory() as folder:
        snapshot = Path(folder) / "cluster.json"
        snapshot.write_bytes(orjson.dumps({"apiVersion": "v1", "kind": "List", "items": list(cluster(nodes).nodes)}))
        port = _free_port()
        command = [sys.executable, "-m", "extender", "serve", "--snapshot", str(snapshot), "--port", str(port)]
        service = subprocess.Popen([*command, "--log-level", "warning"])
        try:
            _wait(f"http://127.0.0.1:{port}/readyz")
            return _locust(nodes, port)
        finally:
            service.terminate()
            service.wait()


def _locust(nodes: int, port: int) -> int:
    command = [
        sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless",
        "--users", str(USERS), "--spawn-rate", str(USERS), "--run-time", f"{SECONDS}s", "--stop-timeout", "20",
        "--host", f"http://127.0.0.1:{port}", "--only-summary", "--loglevel", "WARNING",
    ]  # fmt: skip
    environment = {**os.environ, "LOADTEST_NODES": str(nodes), "PYTHONPATH": os.getcwd()}
    return subprocess.run(command, env=environment, check=False).returncode


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit("the service did not become ready")


if __name__ == "__main__":
    sys.exit(main())
