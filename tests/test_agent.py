import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from extender.agent import nvml
from extender.agent import run as run_module
from extender.agent.nvml import DeviceError
from extender.agent.report import Identity, OwnPod, in_cluster_api
from extender.agent.run import Agent, Pace, run
from extender.core import names
from extender.core.device_report import DeviceReport, Problem
from extender.core.errors import ApiError, Conflict, InputError, NotFound, Refused, Unavailable
from tests.agent_stage import ME, PodApi, gpu, serving, show
from tests.fakenvml import pynvml as fake

REPORT = DeviceReport("GPU-1", 81559, "boot-1")
WRITTEN = {names.DEVICE: "GPU-1", names.DEVICE_MEMORY_MIB: "81559", names.BOOT_ID: "boot-1"}


@pytest.fixture
def api() -> Iterator[PodApi]:
    with serving(PodApi()) as served:
        yield served


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    return tmp_path


@pytest.fixture
def own(api: PodApi, account: Path) -> OwnPod:
    return OwnPod(ME, api.url, account, timeout=2)


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def agent(own: OwnPod, pauses: list[float]) -> Agent:
    return Agent(own, Pace(pauses.append, lambda: 1.0))


# --- the report ---------------------------------------------------------------------------------------------


def test_the_report_is_written_once_and_bound_to_pod_and_version(agent: Agent, api: PodApi) -> None:
    agent.report(REPORT)
    agent.report(REPORT)
    assert api.annotations == WRITTEN
    assert api.bodies == [{"uid": "uid-1", "resourceVersion": "1", "annotations": WRITTEN}]


def test_another_device_is_never_written_over_the_reported_one(agent: Agent, api: PodApi) -> None:
    agent.report(REPORT)
    with pytest.raises(DeviceError, match="reported GPU-1, holds GPU-2") as error:
        agent.report(DeviceReport("GPU-2", 81559, "boot-2"))
    agent.say(error.value)
    assert api.annotations == WRITTEN | {names.DEVICE_HEALTH: "OtherDevice: reported GPU-1, holds GPU-2"}


def test_after_a_reboot_the_same_device_gets_the_new_boot_id(agent: Agent, api: PodApi) -> None:
    agent.report(REPORT)
    agent.report(DeviceReport("GPU-1", 81559, "boot-2"))
    assert api.annotations == WRITTEN | {names.BOOT_ID: "boot-2"}


@pytest.mark.parametrize("trouble", [0, 401, 403, 404, 409, 429, 500, 503, 504])
def test_nothing_that_the_api_answers_ends_the_report(
    agent: Agent, api: PodApi, pauses: list[float], trouble: int
) -> None:
    api.script = [trouble] * 3
    agent.report(REPORT)
    assert api.annotations == WRITTEN
    assert pauses == [0.2, 0.4, 0.8]


def test_pauses_grow_to_half_a_minute_and_are_spread(own: OwnPod, api: PodApi) -> None:
    pauses: list[float] = []
    draws = iter([0.0, 1.0] * 6)
    api.script = [500] * 12
    Agent(own, Pace(pauses.append, lambda: next(draws))).report(REPORT)
    assert pauses[:4] == [0.1, 0.4, 0.4, 1.6]
    assert pauses[-2:] == [15.0, 30.0]


def test_a_write_in_between_is_read_before_the_next_try(agent: Agent, api: PodApi, own: OwnPod) -> None:
    # Two containers of one pod never run at once, but whoever writes in between must not be written over.
    version = own.read()["resourceVersion"]
    api.annotations[names.DEVICE] = "GPU-2"
    api.version += 1
    with pytest.raises(Conflict):
        own.annotate(WRITTEN, version)
    with pytest.raises(DeviceError):
        agent.report(REPORT)
    assert api.annotations == {names.DEVICE: "GPU-2"}


# --- the API ------------------------------------------------------------------------------------------------


def test_the_token_is_read_on_each_use(own: OwnPod, api: PodApi, account: Path) -> None:
    own.read()
    (account / "token").write_text("second")
    own.annotate({names.BOOT_ID: None})
    assert api.tokens == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (403, Refused), (404, NotFound), (409, Conflict), (429, Unavailable), (500, Unavailable)],
)
def test_a_refusal_becomes_one_of_our_errors(own: OwnPod, api: PodApi, status: int, kind: type[ApiError]) -> None:
    api.script = [status]
    with pytest.raises(kind, match=f"answered {status}: scripted"):
        own.read()


def test_a_pod_of_the_same_name_is_another_pod(own: OwnPod, api: PodApi) -> None:
    api.uid = "uid-2"
    with pytest.raises(NotFound, match="another pod"):
        own.read()
    with pytest.raises(Refused):
        own.annotate(WRITTEN)
    assert api.annotations == {}


def test_a_missing_token_and_a_silent_server_are_no_answer(own: OwnPod, api: PodApi, account: Path) -> None:
    api.script = [0]
    with pytest.raises(Unavailable):
        own.read()
    (account / "token").unlink()
    with pytest.raises(Unavailable, match="token"):
        own.read()


def test_a_certificate_that_the_cluster_did_not_sign_is_refused(account: Path, api: PodApi) -> None:
    (account / "ca.crt").write_text("no certificate")
    with pytest.raises(Unavailable):
        OwnPod(ME, api.url.replace("http:", "https:"), account, timeout=2).read()


def test_identity_and_address_come_from_the_environment() -> None:
    there = {"POD_NAMESPACE": "a", "POD_NAME": "b", "POD_UID": "c"}
    assert Identity.from_environment(there) == Identity("a", "b", "c")
    for variable in there:
        with pytest.raises(InputError, match=variable):
            Identity.from_environment(there | {variable: ""})
    assert in_cluster_api({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "https://10.0.0.1:443"
    v6 = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert in_cluster_api(v6) == "https://[fd00::1]:6443"
    with pytest.raises(InputError, match="KUBERNETES_SERVICE_HOST"):
        in_cluster_api({})


# --- a start that fails -------------------------------------------------------------------------------------


def test_a_start_without_a_device_says_why_on_the_pod(
    own: OwnPod, api: PodApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("boot-1\n")
    show(tmp_path / "nvml.json", gpu("GPU-1"), gpu("GPU-2"))
    kept = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(DeviceError) as error:
            run(own, boot_id, Pace(lambda _: None, lambda: 1.0))
    finally:
        signal.signal(signal.SIGTERM, kept)
    assert error.value.problem is Problem.SEVERAL_DEVICES
    assert api.annotations == {names.DEVICE_HEALTH: f"SeveralDevices: {error.value}"}


def test_a_failed_start_does_not_wait_for_ever_to_say_so(agent: Agent, api: PodApi, pauses: list[float]) -> None:
    api.script = [500] * 50
    agent.say(DeviceError(Problem.NVML, "no library"), tries=5)
    assert (len(pauses), api.annotations) == (5, {})


def test_a_problem_that_lasts_is_said_once(
    agent: Agent, api: PodApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "pynvml", fake)
    monkeypatch.setattr(run_module, "LOOK", 0.0)
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))
    show(tmp_path / "nvml.json", gpu(events=False))
    device = nvml.find_device()
    show(tmp_path / "nvml.json", gpu(events=False, lost=True))
    looks = iter(range(5))
    monkeypatch.setattr(device, "_sleep", lambda _: next(looks))
    with pytest.raises(StopIteration):
        agent.watch(device)
    assert [body["annotations"][names.DEVICE_HEALTH] for body in api.bodies] == [
        "Gone: GPU-1 answers no more: GPU is lost"
    ]


# --- the process, as it runs in the container ---------------------------------------------------------------


@contextmanager
def process(api: PodApi, folder: Path) -> Iterator[subprocess.Popen[str]]:
    (folder / "boot_id").write_text("boot-1\n")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(fake.__file__).parent),
        "FAKE_NVML": str(folder / "nvml.json"),
        "POD_NAMESPACE": ME.namespace,
        "POD_NAME": ME.name,
        "POD_UID": ME.uid,
        "GPU_EXTENDER_API": api.url,
        "GPU_EXTENDER_SERVICE_ACCOUNT": str(folder),
        "GPU_EXTENDER_BOOT_ID_FILE": str(folder / "boot_id"),
    }
    command = [sys.executable, "-m", "extender", "agent"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_process_reports_survives_sigterm_and_tells_of_an_xid(api: PodApi, account: Path) -> None:
    show(account / "nvml.json", gpu())
    with process(api, account) as agent:
        until(lambda: api.annotations == WRITTEN)
        agent.send_signal(signal.SIGTERM)
        show(account / "nvml.json", gpu(xids=[31, 79]))
        until(lambda: names.DEVICE_HEALTH in api.annotations)
        show(account / "nvml.json", gpu(xids=[31, 79], lost=True))
        until(lambda: api.annotations[names.DEVICE_HEALTH].startswith("Gone: "))
        assert agent.poll() is None
    texts = [body["annotations"].get(names.DEVICE_HEALTH) for body in api.bodies]
    assert texts == [
        None,
        "Xid: the driver reported XID 79 for GPU-1",
        "Gone: GPU-1 answers no more: GPU is lost",
    ]


def test_without_nvml_the_process_ends_with_status_2_and_one_sentence(api: PodApi, account: Path) -> None:
    with process(api, account) as agent:
        _, told = agent.communicate(timeout=30)
    assert agent.returncode == 2
    assert told.splitlines()[-1].startswith("gpu-extender: NVML's library libnvidia-ml.so.1 is not in this container")
    assert json.loads(told.splitlines()[0])["problem"] == "Nvml"
    assert api.annotations[names.DEVICE_HEALTH].startswith("Nvml: NVML's library")


def test_the_agent_starts_without_the_service() -> None:
    # 64 MiB and a bind that waits: neither web framework nor Kubernetes client belongs into this process.
    program = "import sys; from extender.cli import cli; cli.get_command(None, 'agent'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"pynvml", "click"} < loaded
    assert loaded.isdisjoint({"fastapi", "pydantic", "kubernetes", "numpy", "httpx", "structlog", "rich", "orjson"})
