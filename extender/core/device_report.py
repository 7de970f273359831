"""What the agent writes on its reservation pod, and what it never writes again.

Device and memory are written once: shares were counted against them, so another device or size at a later start is
said in ``device-health`` and never replaces them. The boot id follows the node, but only while the device is the same:
that is how a reservation pod which survived a reboot says that it holds its device again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from extender.core import names


class Problem(StrEnum):
    """What can be said against a device: the first word of ``device-health``."""

    NVML = "Nvml"  # NVML cannot be used in this container: nothing was reported
    NO_DEVICE = "NoDevice"  # the container sees no GPU
    SEVERAL_DEVICES = "SeveralDevices"  # it sees more than one: which of them the pod holds, nobody knows
    MEMORY_UNKNOWN = "MemoryUnknown"  # the device does not tell its memory
    OTHER_DEVICE = "OtherDevice"  # another device than reported: the reported one is held no longer
    MEMORY_CHANGED = "MemoryChanged"  # the same device with another size, as after a change of ECC mode
    XID = "Xid"  # the driver reported a critical error of the device
    GONE = "Gone"  # the device answers no more


#: What a device keeps until the node's next boot; the other problems are a start's own, and end with a better start.
_KEPT: Final = frozenset({Problem.XID, Problem.GONE})


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What NVML and the kernel tell at one start of the agent."""

    device: str
    memory_mib: int
    boot_id: str


def first_difference(report: DeviceReport, written: Mapping[str, Any]) -> tuple[Problem, str] | None:
    """Where the report contradicts what an earlier start wrote; None where it does not."""
    device, memory = written.get(names.DEVICE), written.get(names.DEVICE_MEMORY_MIB)
    if device not in (None, report.device):
        return Problem.OTHER_DEVICE, f"reported {device}, holds {report.device}"
    if memory not in (None, str(report.memory_mib)):
        return Problem.MEMORY_CHANGED, f"reported {memory} MiB, {report.device} has {report.memory_mib} MiB"
    return None


def changes(report: DeviceReport, written: Mapping[str, Any]) -> dict[str, str | None]:
    """The annotations to write (None: remove), empty where all is said. The caller saw to it that nothing differs."""
    wanted = {
        names.DEVICE: report.device,
        names.DEVICE_MEMORY_MIB: str(report.memory_mib),
        names.BOOT_ID: report.boot_id,
    }
    missing: dict[str, str | None] = {key: value for key, value in wanted.items() if written.get(key) != value}
    said = problem_of(written)
    if said is not None and (names.BOOT_ID in missing or said not in _KEPT):
        missing[names.DEVICE_HEALTH] = None
    return missing


def health(problem: Problem, sentence: str) -> str:
    """The value of ``device-health``."""
    return f"{problem}: {sentence}"


def problem_of(annotations: Mapping[str, Any]) -> Problem | None:
    """What a reservation pod says against its device; a word that we do not know counts as ``Nvml``."""
    text = annotations.get(names.DEVICE_HEALTH)
    if not text:
        return None
    word = str(text).partition(":")[0]
    return Problem(word) if word in list(Problem) else Problem.NVML
