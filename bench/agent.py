"""The agent on this machine: what it reports of the GPU, how long its start takes, how much memory it needs.

``python -m bench.agent [NUMBER]``: 10 starts unless told otherwise. It needs an NVIDIA driver and one GPU that it may
see (``CUDA_VISIBLE_DEVICES`` does not hide one from NVML); the API server is played. Without a GPU it shows the error
that a user gets.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from extender.core import names
from tests.agent_stage import ME, PodApi, serving

#: Seconds.
LONGEST_START = 60.0


def start(api: PodApi, folder: Path) -> tuple[float, int, str]:
    """Seconds until it reported or ended, KiB resident then, the end of what it said."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "extender", "agent", "--api", api.url, "--service-account", str(folder)]
    identity = {"POD_NAMESPACE": ME.namespace, "POD_NAME": ME.name, "POD_UID": ME.uid}
    with subprocess.Popen(command, env=os.environ | identity, stderr=subprocess.PIPE, text=True) as agent:
        while agent.poll() is None and names.DEVICE not in api.annotations:
            if time.perf_counter() - begin > LONGEST_START:
                break
            time.sleep(0.002)
        took = time.perf_counter() - begin
        time.sleep(0.5)  # let it register for events
        resident = _resident_kib(agent.pid)
        agent.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        survived = agent.poll() is None
        agent.kill()
        said = agent.communicate()[1].splitlines()
    return took, resident, f"survives SIGTERM: {survived}; {said[-1] if said else ''}"


def _resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def main() -> None:
    """Print one line for each fact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", nargs="?", type=int, default=10, help="how many starts")
    number = parser.parse_args().number
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "token").write_text("of nobody")
        seconds, kib = [], []
        for _ in range(number):
            with serving(PodApi()) as api:
                took, resident, said = start(api, Path(folder))
            seconds.append(took)
            kib.append(resident)
    for key, value in sorted(api.annotations.items()):
        print(f"{key}: {value}")
    print(said)
    print(f"start to report: median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s, {number} starts")
    print(f"peak resident: {max(kib) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
