"""NVML's binding without a GPU, as far as the agent uses it. Put this folder first on PYTHONPATH.

What it shows is the JSON in the file that ``FAKE_NVML`` names, read at every call, so that a test can change it::

    {"gpus": [{"uuid": "GPU-1", "mib": 81559, "mig": null, "lost": false, "xids": [79]}]}

``mig``: null where the GPU is not in MIG mode (``"unsupported": true``: not capable of it), else a list of instances
``{"uuid": "MIG-1", "mib": 9728, "gi": 7}``, null for a free place,
``"foreign"`` for one that this container may not see, ``"broken"`` for an error. ``mib`` null: not told, as by a GB10.
``lost``: the device answers no more. ``xids``: codes to report, each once; ``{"xid": 79, "gi": 7}`` for one of a MIG
instance.
``"events": false``: the driver tells this container nothing. No file: NVML's library is not there.
"""

# The names are the library's.
# ruff: noqa: N801, N802, N803, N815, N816

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NVML_DEVICE_MIG_ENABLE = 1
nvmlEventTypeXidCriticalError = 8

_POLL = 0.02
_reported: dict[int, int] = {}


class NVMLError(Exception):
    """As in the real one: the text names the error."""


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_ResetRequired(NVMLError):
    pass


class NVMLError_Timeout(NVMLError):
    pass


class NVMLError_Unknown(NVMLError):
    pass


@dataclass(frozen=True)
class _Device:
    gpu: int
    instance: int | None = None


@dataclass(frozen=True)
class _Memory:
    total: int


@dataclass(frozen=True)
class _Event:
    eventType: int
    eventData: int
    gpuInstanceId: int


def _gpus() -> list[dict[str, Any]]:
    gpus: list[dict[str, Any]] = json.loads(Path(os.environ["FAKE_NVML"]).read_text("utf-8"))["gpus"]
    return gpus


def _gpu(handle: _Device) -> dict[str, Any]:
    return _gpus()[handle.gpu]


def _shown(handle: _Device) -> dict[str, Any]:
    gpu = _gpu(handle)
    if gpu.get("lost"):
        raise NVMLError_GpuIsLost("GPU is lost")
    if gpu.get("unreadable"):
        raise NVMLError_Unknown("Unknown Error")
    instance: dict[str, Any] = gpu if handle.instance is None else gpu["mig"][handle.instance]
    return instance


def nvmlInit() -> None:
    if not Path(os.environ["FAKE_NVML"]).exists():
        raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")


def nvmlDeviceGetCount() -> int:
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> _Device:
    return _Device(index)


def nvmlDeviceGetUUID(handle: _Device) -> str:
    return str(_shown(handle)["uuid"])


def nvmlDeviceGetMemoryInfo(handle: _Device, version: int | None = None) -> _Memory:
    mib = _shown(handle)["mib"]
    if mib is None:
        raise NVMLError_NotSupported("Not Supported")
    return _Memory(mib * 1024**2)


def nvmlDeviceGetMigMode(device: _Device) -> list[int]:
    if _gpu(device).get("unsupported"):
        raise NVMLError_NotSupported("Not Supported")
    current = 0 if _gpu(device).get("mig") is None else NVML_DEVICE_MIG_ENABLE
    return [current, current]


def nvmlDeviceGetMaxMigDeviceCount(device: _Device) -> int:
    return len(_gpu(device)["mig"])


def nvmlDeviceGetMigDeviceHandleByIndex(device: _Device, index: int) -> _Device:
    refusals = {None: NVMLError_NotFound, "foreign": NVMLError_NoPermission, "broken": NVMLError_Unknown}
    place = _gpu(device)["mig"][index]
    if not isinstance(place, dict):
        raise refusals[place](str(place))
    return _Device(device.gpu, index)


def nvmlDeviceGetGpuInstanceId(device: _Device) -> int:
    return int(_shown(device)["gi"])


def nvmlDeviceGetSupportedEventTypes(handle: _Device) -> int:
    return nvmlEventTypeXidCriticalError if _gpu(handle).get("events", True) else 0


def nvmlEventSetCreate() -> list[_Device]:
    return []


def nvmlDeviceRegisterEvents(handle: _Device, eventTypes: int, eventSet: list[_Device]) -> None:
    eventSet.append(handle)


def nvmlEventSetWait_v2(eventSet: list[_Device], timeoutms: int) -> _Event:
    (device,) = eventSet
    deadline = time.monotonic() + timeoutms / 1000
    while True:
        xids = _gpu(device).get("xids", [])
        number = _reported.get(device.gpu, 0)
        if number < len(xids):
            _reported[device.gpu] = number + 1
            xid = xids[number] if isinstance(xids[number], dict) else {"xid": xids[number]}
            return _Event(nvmlEventTypeXidCriticalError, xid["xid"], xid.get("gi", 0xFFFFFFFF))
        if time.monotonic() >= deadline:
            raise NVMLError_Timeout("Timeout")
        time.sleep(min(_POLL, max(0.0, deadline - time.monotonic())))
