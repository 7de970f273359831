"""The real agent as the process of a reservation pod's container; only NVML is replaced, at its binding's boundary.

::

    Referee(client, agent=RealAgent(plane))
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from extender.core import names, reservation
from tests.agent_stage import gpu, show
from tests.controlplane.client import Client
from tests.controlplane.cluster import ControlPlane
from tests.controlplane.environment import environments
from tests.controlplane.kubelets import Started
from tests.fakenvml import pynvml

Pod = Mapping[str, Any]
_TOKENS: Final = f"/api/v1/namespaces/{names.RESERVATION_NAMESPACE}/serviceaccounts/{reservation.SERVICE_ACCOUNT}/token"
TREE: Final = Path(__file__).parent.parent.parent


def service_account(plane: ControlPlane, token: str, folder: Path) -> Path:
    """Fill the folder as a kubelet does: that token, and the cluster's authority."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(plane.authority.read_bytes())
    return folder


async def token_for(client: Client, pod: Pod | None) -> str:
    """Of the agents' account, as a kubelet asks for it for that pod; None: one of no pod. Raises Answer."""
    spec: dict[str, Any] = {"audiences": []}
    if pod is not None:
        metadata = pod["metadata"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return str((await client.post(_TOKENS, request))["status"]["token"])


def command(pod: Pod) -> list[str]:
    """What the image's entry point makes of the container's arguments."""
    return [sys.executable, "-m", "extender", *pod["spec"]["containers"][0]["args"]]


def environment(plane: ControlPlane, pod: Pod, account: Path, folder: Path) -> dict[str, str]:
    """What the container gets, the downward API filled in; ``folder`` holds nvml.json and boot_id."""
    host, _, port = plane.server.removeprefix("https://").partition(":")
    return environments(pod)["agent"] | {
        "PATH": os.environ["PATH"],
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "GPU_EXTENDER_SERVICE_ACCOUNT": str(account),
        "GPU_EXTENDER_BOOT_ID_FILE": str(folder / "boot_id"),
        "PYTHONPATH": f"{Path(pynvml.__file__).parent}:{TREE}",
        "FAKE_NVML": str(folder / "nvml.json"),
    }


async def _sigterm(started: Started, process: asyncio.subprocess.Process) -> None:
    """The kubelet's, to the first process of a container: the kernel drops it where that has not said what it does."""
    await started.terminated.wait()
    with suppress(OSError):  # It has ended.
        if _handles(process.pid, signal.SIGTERM):
            process.terminate()


def _handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process ignores or catches that signal. Raises OSError."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn:", "SigCgt:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


class RealAgent:
    """A referee's agent: one process per reservation pod; it gets SIGTERM, and is killed when its container ends."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def __call__(self, started: Started) -> None:
        """Run until cancelled.

        An agent that ends by itself, or for a SIGTERM, raises: its container would be started again, or its device be
        another's while shares run on it.
        """
        folder = self.folder(started.pod)
        folder.mkdir(parents=True, exist_ok=True)
        show(folder / "nvml.json", gpu(started.device.uuid, started.device.mib))
        (folder / "boot_id").write_text(started.boot_id + "\n")
        account = service_account(self._plane, await token_for(started.client, started.pod), folder / "account")
        variables = environment(self._plane, started.pod, account, folder)
        with (folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command(started.pod), env=variables, stderr=log)
        sigterm = asyncio.create_task(_sigterm(started, process))
        try:
            status = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await asyncio.shield(process.wait())
            raise
        finally:
            sigterm.cancel()
        raise AssertionError(f"the agent ended with status {status}\n{(folder / 'log').read_text()}")

    def folder(self, pod: Pod) -> Path:
        """Where its NVML, boot id and log lie: change nvml.json with ``agent_stage.show`` and the agent sees it."""
        return self._plane.folder / "agents" / str(pod["metadata"]["uid"])
