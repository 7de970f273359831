"""The agent from start to end: find the device, report it once, then watch it until the pod is killed.

A reservation pod holds its device for as long as its container runs, so neither SIGTERM nor an API server that does
not answer ends it: while user pods run on the device, only the kubelet's SIGKILL may. The extender deletes with a
grace period of 2 s, everybody else waits the pod's week.
"""

import json
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from extender.agent.nvml import Device, DeviceError, find_device
from extender.agent.report import OwnPod
from extender.core import names
from extender.core.device_report import DeviceReport, changes, first_difference, health
from extender.core.errors import ApiError, InputError

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
#: Seconds: the first pause between two tries, and the longest.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 30.0
#: How often a start that failed says so, before it ends for the kubelet to show.
LAST_WORDS: Final = 5
#: Seconds between two looks at the device where no event comes.
LOOK: Final = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How the agent waits; tests do not."""

    sleep: Callable[[float], None] = time.sleep
    #: A number from 0 to 1: agents that start together must not ask together.
    jitter: Callable[[], float] = random.random


def log(event: str, **fields: object) -> None:
    """One JSON line on stderr."""
    print(json.dumps({"event": event, **fields}, default=str), file=sys.stderr, flush=True)


def run(own: OwnPod, boot_id_file: Path = BOOT_ID_FILE, pace: Pace | None = None) -> NoReturn:
    """Never returns. Raises DeviceError where there is no device to report, InputError without a boot id."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    agent = Agent(own, pace or Pace())
    boot_id = read_boot_id(boot_id_file)
    try:
        device = find_device()
        agent.report(DeviceReport(device.uuid, device.memory_mib, boot_id))
    except DeviceError as error:
        agent.say(error, tries=LAST_WORDS)
        raise
    log("watching", device=device.uuid, reports_xids=device.reports_xids)
    agent.watch(device)


def read_boot_id(file: Path) -> str:
    """The id of this boot of the node. Raises InputError."""
    try:
        boot_id = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: {error}") from error
    if not boot_id:
        raise InputError(f"{file}: is empty, must be a boot id")
    return boot_id


class Agent:
    """Says things on its own pod, however long that takes."""

    def __init__(self, own: OwnPod, pace: Pace) -> None:
        self._own = own
        self._pace = pace

    def report(self, report: DeviceReport) -> None:
        """Write the report unless an earlier start has. Raises DeviceError where that one said something else."""
        self._until_done(lambda: self._report_once(report))

    def _report_once(self, report: DeviceReport) -> None:
        metadata = self._own.read()
        written: Mapping[str, Any] = metadata.get("annotations") or {}
        difference = first_difference(report, written)
        if difference is not None:
            raise DeviceError(*difference)
        missing = changes(report, written)
        if missing:
            self._own.annotate(missing, version=metadata.get("resourceVersion"))
        log("reported" if missing else "reported before", device=report.device, memory_mib=report.memory_mib)

    def watch(self, device: Device) -> NoReturn:
        """Say each problem of the device once, for ever."""
        said: set[str] = set()
        while True:
            error = device.next_problem(LOOK)
            if error is not None and str(error) not in said:
                said.add(str(error))
                self.say(error)

    def say(self, error: DeviceError, tries: int | None = None) -> None:
        """Write the problem on the pod: until it is written, or that often."""
        log("device problem", problem=error.problem, sentence=str(error))
        self._until_done(lambda: self._own.annotate({names.DEVICE_HEALTH: health(error.problem, str(error))}), tries)

    def _until_done(self, step: Callable[[], None], tries: int | None = None) -> None:
        pause = FIRST_PAUSE
        while tries is None or tries > 0:
            try:
                step()
            except ApiError as error:
                log("not written yet", error=str(error))
            else:
                return
            if tries is not None:
                tries -= 1
            self._pace.sleep(pause * (0.5 + self._pace.jitter() / 2))
            pause = min(pause * 2, LONGEST_PAUSE)
