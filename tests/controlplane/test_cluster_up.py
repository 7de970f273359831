"""``make cluster`` as a person meets it: apply the examples, see them run, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane.process import PATIENCE, free_port, wait_for

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted((ROOT / "examples/pods").glob("*.yaml"))
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
"""

pytestmark = pytest.mark.timeout(300)  # Five processes start, on a machine that has others to serve too.


@dataclass
class Cluster:
    """The running command."""

    process: subprocess.Popen[bytes]
    folder: Path
    output: Path
    port: int

    def said(self) -> str:
        return self.output.read_text()

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        command = [str(self.folder / "kubectl"), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pods(self) -> dict[str, Any]:
        """Of the default namespace, by name."""
        return {pod["metadata"]["name"]: pod for pod in json.loads(self.kubectl("get", "pods", "-o", "json"))["items"]}

    def phases(self) -> dict[str, str]:
        return {name: pod["status"]["phase"] for name, pod in self.pods().items()}


def processes_of(folder: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue  # It has ended, or is another user's.
        if folder.encode() in known:
            found.append(known.split(b"\0", 2)[1].decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    port, output = free_port(), folder / "output"
    command = [sys.executable, "-m", "examples.cluster_up", f"--port={port}", f"--folder={folder}"]
    with output.open("wb") as log:
        # A session of its own: Ctrl-C reaches all of a terminal's processes.
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        cluster = Cluster(process, folder, output, port)
        try:
            wait_for(lambda: "Ctrl-C stops" in cluster.said() or process.poll() is not None, 120, cluster.said)
            assert process.poll() is None, cluster.said()
            yield cluster
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_every_example_runs_with_its_device(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "examples/pods")
    names = {line.split("/")[1].split()[0] for line in cluster.kubectl("get", "pods", "-o", "name").splitlines()}
    assert len(names) == len(EXAMPLES)
    wait_for(lambda: cluster.phases() == dict.fromkeys(names, "Running"), PATIENCE, lambda: f"{cluster.phases()}")
    for pod in cluster.pods().values():
        assert pod["metadata"]["annotations"]["gpu-extender.io/visible-devices"].startswith("GPU-")
        variables = [entry for container in pod["spec"]["containers"] for entry in container.get("env", ())]
        sources = [entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in variables if "valueFrom" in entry]
        assert "metadata.annotations['gpu-extender.io/visible-devices']" in sources


def test_a_deployment_that_names_no_scheduler_runs_too(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=DEPLOYMENT)

    def running() -> int:
        return sum(name.startswith("web-") and phase == "Running" for name, phase in cluster.phases().items())

    wait_for(lambda: running() == 2, PATIENCE, lambda: f"{cluster.phases()}")


def test_the_command_line_sees_the_same(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "extender", "inspect", "--server", f"http://127.0.0.1:{cluster.port}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "4 x A100-SXM4-80GB" in shown
    assert "default/llm-server" in shown


def test_a_port_that_is_in_use_is_named(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "examples.cluster_up", f"--port={cluster.port}", f"--folder={cluster.folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"make: port {cluster.port} is in use: stop what listens there\n"
    assert (cluster.folder / "kubectl").exists()


def test_ctrl_c_ends_everything_and_leaves_nothing_behind(cluster: Cluster) -> None:
    """The last test here."""
    kubeconfig = json.loads((cluster.folder / "kubeconfig").read_text())
    temporary = Path(kubeconfig["clusters"][0]["cluster"]["certificate-authority"]).parent.parent
    started = processes_of(str(temporary))
    assert len(started) >= 5, started
    os.killpg(cluster.process.pid, signal.SIGINT)
    assert cluster.process.wait(60) == 0
    assert "Traceback" not in cluster.said()
    assert "violation" not in cluster.said()
    wait_for(lambda: processes_of(str(temporary)) == [], PATIENCE, lambda: f"{processes_of(str(temporary))}")
    assert not temporary.exists()
    assert sorted(path.name for path in cluster.folder.iterdir()) == ["output"]
