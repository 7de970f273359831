import ctypes
import importlib.util
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pynvml as real  # type: ignore[import-untyped]
import pytest

from extender.agent import nvml
from extender.agent.nvml import APPLICATION_XIDS, Device, DeviceError, find_device
from extender.core.device_report import Problem
from tests.agent_stage import gpu, show
from tests.fakenvml import pynvml as fake


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setattr(fake, "_reported", {})
    return tmp_path / "nvml.json"


def refused(*gpus: dict[str, Any], file: Path) -> DeviceError:
    show(file, *gpus)
    with pytest.raises(DeviceError) as error:
        find_device()
    return error.value


def test_the_fake_has_nothing_that_the_library_has_not() -> None:
    for name, there in vars(fake).items():
        if name.startswith("nvml") and callable(there):
            expected = list(inspect.signature(getattr(real, name)).parameters)
            assert list(inspect.signature(there).parameters) == expected, name
        elif name.startswith(("NVML", "nvml")):
            assert name.startswith("NVMLError") or there == getattr(real, name), name
            assert hasattr(real, name), name
    source = inspect.getsource(nvml)
    used = {word.split("(")[0].rstrip(",:).]") for word in source.replace("(", " ").split() if "pynvml." in word}
    assert len(used) > 15
    for word in used:
        assert hasattr(fake, word.rpartition("pynvml.")[2]), word


def test_the_one_gpu_and_its_memory(shown: Path) -> None:
    show(shown, gpu("GPU-1", 81559))
    device = find_device()
    assert (device.uuid, device.memory_mib) == ("GPU-1", 81559)


def test_a_gpu_that_knows_no_mig(shown: Path) -> None:
    show(shown, gpu("GPU-1", 15360, unsupported=True))
    assert find_device().uuid == "GPU-1"


def test_a_mig_instance_is_reported_and_not_its_parent(shown: Path) -> None:
    show(shown, gpu("GPU-1", 81559, mig=[None, "foreign", {"uuid": "MIG-1", "mib": 9728, "gi": 9}, None]))
    device = find_device()
    assert (device.uuid, device.memory_mib) == ("MIG-1", 9728)


def test_more_than_one_device_is_never_guessed_between(shown: Path) -> None:
    two = [{"uuid": f"MIG-{i}", "mib": 9728, "gi": i} for i in range(2)]
    for gpus in ([gpu("GPU-1"), gpu("GPU-2")], [gpu(mig=two)]):
        error = refused(*gpus, file=shown)
        assert error.problem is Problem.SEVERAL_DEVICES
        assert "2 " in str(error)


def test_no_device(shown: Path) -> None:
    assert refused(file=shown).problem is Problem.NO_DEVICE
    assert refused(gpu(mig=[None]), file=shown).problem is Problem.NO_DEVICE


@pytest.mark.parametrize("mib", [None, 0])
def test_unknown_memory_is_never_guessed(shown: Path, mib: int | None) -> None:
    error = refused(gpu("GPU-1", mib), file=shown)
    assert error.problem is Problem.MEMORY_UNKNOWN
    assert "GPU-1" in str(error)


def test_without_the_library_the_error_names_it_and_the_cure(shown: Path) -> None:
    with pytest.raises(DeviceError, match=r"libnvidia-ml\.so\.1 .* CDI .* runtime class") as error:
        find_device()
    assert error.value.problem is Problem.NVML


def test_a_gpu_that_is_lost_from_the_start(shown: Path) -> None:
    error = refused(gpu(lost=True), file=shown)
    assert (error.problem, str(error)) == (Problem.NVML, "NVML's nvmlDeviceGetUUID failed: GPU is lost")
    assert refused(gpu(mig=["broken"]), file=shown).problem is Problem.NVML


def found(file: Path, *gpus: dict[str, Any]) -> Device:
    show(file, *gpus)
    return find_device()


def test_a_critical_xid_is_told_and_those_of_applications_are_not(shown: Path) -> None:
    device = found(shown, gpu(xids=[*sorted(APPLICATION_XIDS), 79]))
    told = [device.next_problem(0) for _ in range(len(APPLICATION_XIDS) + 2)]
    assert [error and (error.problem, str(error)) for error in told if error] == [
        (Problem.XID, "the driver reported XID 79 for GPU-1")
    ]
    assert sorted(APPLICATION_XIDS) == [13, 31, 43, 45, 68, 109]


def test_an_xid_of_another_mig_instance_is_not_ours(shown: Path) -> None:
    instance = {"uuid": "MIG-1", "mib": 9728, "gi": 9}
    device = found(shown, gpu(mig=[instance], xids=[{"xid": 95, "gi": 3}, {"xid": 95, "gi": 9}, 79]))
    told = [device.next_problem(0) for _ in range(3)]
    assert [error and str(error) for error in told] == [
        None,
        "the driver reported XID 95 for MIG-1",
        "the driver reported XID 79 for MIG-1",
    ]


@pytest.mark.parametrize("events", [True, False])
def test_a_device_that_is_gone_is_seen_with_and_without_events(shown: Path, events: bool) -> None:
    device = found(shown, gpu(events=events))
    assert device.reports_xids is events
    assert device.next_problem(0) is None
    show(shown, gpu(events=events, lost=True))
    error = device.next_problem(0)
    assert error is not None
    assert error.problem is Problem.GONE


def test_one_unreadable_answer_is_an_accident_and_three_are_not(shown: Path) -> None:
    device = found(shown, gpu())
    show(shown, gpu(unreadable=True))
    assert [device.next_problem(0) for _ in range(2)] == [None, None]
    show(shown, gpu())
    assert device.next_problem(0) is None
    show(shown, gpu(unreadable=True))
    told = [device.next_problem(0) for _ in range(3)]
    assert [error is None for error in told] == [True, True, False]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to make a library")
def test_a_library_that_the_loader_does_not_know_is_found_where_runtimes_put_it(tmp_path: Path) -> None:
    # As under CDI when its hooks did not run: the versioned file is there, the .so.1 link is not.
    file = tmp_path / "libnvidia-ml.so.580.1"
    source = tmp_path / "nvml.c"
    source.write_text("int nvmlInit_v2(void) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-Wl,-soname,libnvidia-ml.so.1", "-o", str(file), str(source)], check=True)
    program = (
        "import ctypes; from extender.agent.nvml import load_library\n"
        f"load_library([{str(tmp_path / 'nowhere')!r}, {str(tmp_path)!r}])\n"
        "print(ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    with pytest.raises(OSError, match=r"libnvidia-ml\.so\.1"):
        ctypes.CDLL("libnvidia-ml.so.1")


def test_only_one_module_imports_the_binding() -> None:
    package = Path(importlib.util.find_spec("extender").submodule_search_locations[0])  # type: ignore[union-attr,index]
    importers = {str(f.relative_to(package)) for f in package.rglob("*.py") if "import pynvml" in f.read_text("utf-8")}
    assert importers == {"agent/nvml.py"}
