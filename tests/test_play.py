"""`make run`, as a process: the service beside one that plays kube-scheduler."""

import re
import subprocess
import sys

from extender.core.podreader import namespaced_name
from extender.simulator import pending
from extender.snapshot import load_snapshot
from tests.controlplane.process import free_port
from tests.test_docs import CLUSTER, ROOT


def test_says_of_every_pending_pod_where_it_went_or_why_it_waits() -> None:
    port = free_port()
    command = [sys.executable, "-m", "examples.play", "--snapshot", str(CLUSTER), "--port", str(port), "--once"]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert played.returncode == 0, played.stderr
    placed = re.findall(r"^(\S+/\S+) +\S+ +(?:GPU-|-)", played.stdout, re.M)
    waiting = re.findall(r"^(\S+/\S+) waits:\n +\d+ nodes? ", played.stdout, re.M)
    wanted = ["/".join(namespaced_name(pod)) for pod in pending(load_snapshot(CLUSTER).pods)]
    assert sorted(placed + waiting) == sorted(wanted)
    assert f"gpu-extender inspect --server http://127.0.0.1:{port}\n" in played.stdout
