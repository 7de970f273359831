"""``make cluster``: a real control plane with GPU nodes that are played, and gpu-extender installed from its manifests.

etcd, kube-apiserver, kube-scheduler and some controllers are the real ones; the extender and the scheduler have the
configuration and the rights of ``manifests/base``. Kubelets and device plugins are played: pods become Running, and
nothing runs. Everything ends with Ctrl-C and leaves nothing behind.
"""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.builders import NodeBuilder, make_node
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.referee import Referee
from tests.controlplane.stage import Stage, configuration

FOLDER: Final = Path("build/cluster")
CONTROLLERS: Final = ("deployment-controller", "replicaset-controller", "job-controller", "namespace-controller",
                      "garbage-collector-controller", "clusterrole-aggregation-controller")  # fmt: skip


def nodes() -> Iterator[NodeBuilder]:
    """Two kinds of GPUs, tainted as GPU nodes usually are, and a node without."""
    for name in ("a100-01", "a100-02"):
        node = make_node(name).cpu(96).memory("1Ti").gpus(4, mib=81920, product="NVIDIA-A100-SXM4-80GB")
        yield node.taint("nvidia.com/gpu", "present")
    l4 = make_node("l4-01").cpu(48).memory("192Gi").gpus(4, mib=23034, product="NVIDIA-L4", mig_capable=False)
    yield l4.taint("nvidia.com/gpu", "present")
    yield make_node("cpu-01").cpu(32).memory("128Gi")


def main() -> int:
    """Run until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8888, help="where the extender answers")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where kubectl and its kubeconfig are put")
    options = parser.parse_args()
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", options.port)) == 0:
            print(f"make: port {options.port} is in use: stop what listens there", file=sys.stderr)
            return 2
    for ending in (signal.SIGTERM, signal.SIGINT):  # Also while we start, and for who started us in the background.
        signal.signal(ending, signal.default_int_handler)
    try:
        with Stage() as stage, tools(stage.plane, options.folder) as kubectl:
            asyncio.run(_serve(stage, kubectl, options.port))
    except KeyboardInterrupt:
        pass
    return 0


@contextmanager
def tools(plane: ControlPlane, folder: Path) -> Iterator[Path]:
    """``kubectl`` and ``kubeconfig`` in that folder, as long as the cluster is there."""
    folder.mkdir(parents=True, exist_ok=True)
    kubeconfig, kubectl = (folder / "kubeconfig").absolute(), folder / "kubectl"
    try:
        kubeconfig.write_text(plane.kubeconfig().read_text())
        kubectl.write_text(f"#!/bin/sh\nKUBECONFIG='{kubeconfig}' exec '{plane.binary}' kubectl \"$@\"\n")
        kubectl.chmod(0o755)
        yield kubectl
    finally:
        kubeconfig.unlink(missing_ok=True)
        kubectl.unlink(missing_ok=True)


async def _serve(stage: Stage, kubectl: Path, port: int) -> None:
    plane = stage.plane
    # The extender runs beside the cluster, not in it.
    plane.kubectl("delete", "deployment", "gpu-extender", "--namespace=gpu-extender")
    plane.start_controllers(*CONTROLLERS)
    extender = stage.start_extender(port=port)
    # The manifests' scheduler in the place of the cluster's own too: pods that name none are placed as well.
    profiles: list[Any] = configuration(extender)["profiles"]
    stage.start_scheduler(extender, profiles=[*profiles, {"schedulerName": "default-scheduler"}])
    async with Client(plane) as client, Referee(client) as referee:
        for node in nodes():
            await referee.add_node(node.build())
        print(_told(kubectl, port), flush=True)
        await _watch(referee)


async def _watch(referee: Referee) -> None:
    """For ever: say what should never happen."""
    told: set[object] = set()
    while True:
        await asyncio.sleep(1)
        for violation in referee.violations():
            if violation not in told:
                told.add(violation)
                print(f"violation: {violation}", file=sys.stderr, flush=True)


def _told(kubectl: Path, port: int) -> str:
    folder = kubectl.parent
    return f"""
A real control plane, with GPU nodes that are played. In another terminal:

  {kubectl} get nodes
  {kubectl} apply -f examples/pods/inference.yaml
  {kubectl} get pods -o wide
  {kubectl} get pod llm-server -o yaml
  .venv/bin/gpu-extender inspect --server http://127.0.0.1:{port}

Other clients: KUBECONFIG={(folder / "kubeconfig").absolute()}
Ctrl-C stops everything."""


if __name__ == "__main__":
    sys.exit(main())
