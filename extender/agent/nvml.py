"""The one device of this container, as NVML shows it. The only importer of NVML's binding (``nvidia-ml-py``)."""

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pynvml  # type: ignore[import-untyped]

from extender.core.device_report import Problem
from extender.core.errors import GpuExtenderError

Handle = Any

_LIBRARY: Final = "libnvidia-ml.so.1"
_FILES: Final = "libnvidia-ml.so.[0-9]*"
#: Where the library lies when the container's loader was not told: GKE's device plugin mounts it at the first; under
#: CDI the file is there, but its ``.so.1`` link and the loader's cache are the work of hooks that may not have run.
_FOLDERS: Final = (
    "/usr/local/nvidia/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
)
#: Errors that a program on the device causes; the device itself is well. The device plugin leaves out the same.
APPLICATION_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
#: What an event carries that concerns the whole device and not one MIG instance.
_NO_INSTANCE: Final = 0xFFFFFFFF
#: So many unreadable answers in a row are no accident.
_PATIENCE: Final = 3


class DeviceError(GpuExtenderError):
    """The device cannot be reported, or is no longer what it was."""

    def __init__(self, problem: Problem, sentence: str) -> None:
        super().__init__(sentence)
        self.problem = problem


class Device:
    """A GPU, or a MIG instance of one."""

    def __init__(self, handle: Handle, parent: Handle, sleep: Callable[[float], None] = time.sleep) -> None:
        self._handle = handle
        self._sleep = sleep
        self._unreadable = 0
        self.uuid = str(_ask(pynvml.nvmlDeviceGetUUID, handle))
        self.memory_mib = _memory_mib(handle, self.uuid)
        self._instance = _ask(pynvml.nvmlDeviceGetGpuInstanceId, handle) if handle is not parent else None
        self._events = _xid_events(parent)

    @property
    def reports_xids(self) -> bool:
        """Whether the driver tells this container of critical errors; without, only a device that is gone is seen."""
        return self._events is not None

    def next_problem(self, seconds: float) -> DeviceError | None:
        """Wait up to that long; what went wrong meanwhile, or None."""
        return self._wait_for_xid(seconds) or self._gone()

    def _wait_for_xid(self, seconds: float) -> DeviceError | None:
        if self._events is None:
            self._sleep(seconds)
            return None
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(seconds * 1000))
        except pynvml.NVMLError_Timeout:
            return None
        except pynvml.NVMLError:
            self._sleep(seconds)  # a device that is gone answers at once
            return None
        ours = event.gpuInstanceId in (_NO_INSTANCE, self._instance) or self._instance is None
        if not ours or event.eventData in APPLICATION_XIDS:
            return None
        return DeviceError(Problem.XID, f"the driver reported XID {event.eventData} for {self.uuid}")

    def _gone(self) -> DeviceError | None:
        try:
            pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired) as error:
            return DeviceError(Problem.GONE, f"{self.uuid} answers no more: {error}")
        except pynvml.NVMLError as error:
            self._unreadable += 1
            if self._unreadable >= _PATIENCE:
                return DeviceError(Problem.GONE, f"{self.uuid} cannot be read any more: {error}")
        else:
            self._unreadable = 0
        return None


def find_device() -> Device:
    """The one device that this container was given. Raises DeviceError."""
    _initialize()
    count = _ask(pynvml.nvmlDeviceGetCount)
    if count == 0:
        raise DeviceError(Problem.NO_DEVICE, "NVML sees no GPU in this container")
    if count > 1:
        raise _several(f"{count} GPUs")
    parent = _ask(pynvml.nvmlDeviceGetHandleByIndex, 0)
    if not _mig_is_on(parent):
        return Device(parent, parent)
    instances = list(_mig_instances(parent))
    if not instances:
        raise DeviceError(Problem.NO_DEVICE, "NVML sees a GPU in MIG mode, but no MIG instance of it")
    if len(instances) > 1:
        raise _several(f"{len(instances)} MIG instances")
    return Device(instances[0], parent)


def _several(what: str) -> DeviceError:
    # Which of them the pod holds cannot be told from inside: never guess.
    sentence = (
        f"this container sees {what} instead of one: it must not be privileged, and nothing but the device plugin "
        "may give it devices (no NVIDIA_VISIBLE_DEVICES in image or pod)"
    )
    return DeviceError(Problem.SEVERAL_DEVICES, sentence)


def _initialize() -> None:
    load_library()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound as error:
        sentence = (
            f"NVML's library {_LIBRARY} is not in this container: the container runtime put no driver into it. "
            "Let it inject CDI devices (GPU Operator 25.10 and later, containerd 2 or enable_cdi), or give reservation "
            "pods the runtime class of NVIDIA's runtime, mostly 'nvidia'; see docs/agent.md"
        )
        raise DeviceError(Problem.NVML, sentence) from error
    except pynvml.NVMLError as error:
        raise DeviceError(Problem.NVML, f"NVML cannot be initialized: {error}") from error


def load_library(folders: Iterable[str] = _FOLDERS) -> None:
    """Load NVML's library from where container runtimes put it, unless the loader finds it itself.

    What is loaded once the loader later finds by its SONAME, whatever the file's name.
    """
    files = (str(file) for folder in folders for file in sorted(Path(folder).glob(_FILES)))
    for name in (_LIBRARY, *files):
        with contextlib.suppress(OSError):
            ctypes.CDLL(name)
            return


def _ask(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise DeviceError(Problem.NVML, f"NVML's {function.__name__} failed: {error}") from error


def _memory_mib(handle: Handle, uuid: str) -> int:
    """The size as GPU feature discovery writes it into node labels. Raises DeviceError: a size is never guessed."""
    try:
        mib = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) // 1024**2
    except pynvml.NVMLError_NotSupported:
        mib = 0
    except pynvml.NVMLError as error:
        raise DeviceError(Problem.NVML, f"NVML does not tell the memory of {uuid}: {error}") from error
    if mib < 1:
        sentence = f"{uuid} has no memory of its own that NVML could tell (as on GB10): it cannot be shared by memory"
        raise DeviceError(Problem.MEMORY_UNKNOWN, sentence)
    return mib


def _mig_is_on(parent: Handle) -> bool:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(parent)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False
    except pynvml.NVMLError as error:
        raise DeviceError(Problem.NVML, f"NVML does not tell the MIG mode: {error}") from error
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _mig_instances(parent: Handle) -> Iterable[Handle]:
    for index in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, parent)):
        try:
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, index)
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_NoPermission):
            continue  # another container's, or none
        except pynvml.NVMLError as error:
            raise DeviceError(Problem.NVML, f"NVML does not tell MIG instance {index}: {error}") from error


def _xid_events(parent: Handle) -> Any:
    """An event set that tells of XIDs; None where this device or container gets none."""
    try:
        kinds = pynvml.nvmlDeviceGetSupportedEventTypes(parent) & pynvml.nvmlEventTypeXidCriticalError
        if not kinds:
            return None
        events = pynvml.nvmlEventSetCreate()
        pynvml.nvmlDeviceRegisterEvents(parent, kinds, events)
    except pynvml.NVMLError:
        return None
    return events
