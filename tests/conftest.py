"""What all tests share: logs are caught and must hold no traceback; the service can be had as a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from xdist.scheduler import LoadGroupScheduling

START_SECONDS = 30.0


def pytest_collection_finish(session: pytest.Session) -> None:
    """What takes minutes to build, once on a machine, is built before the first test: no test has time for it."""
    build = sys.modules.get("tests.controlplane.build")
    if build is not None and session.items and not session.config.option.collectonly:
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            build.controlplane_binary()


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The log events of this test. An exception that was caught and logged is a bug all the same.

    A command that runs in this process must not set up logging: that would last for every test after it.
    """
    monkeypatch.setattr("extender.logs.configure", lambda _level: None)
    with structlog.testing.capture_logs() as events:
        yield events
    assert [event for event in events if event.get("exc_info")] == []


@dataclass
class Serving:
    """``gpu-extender serve`` in a process of its own."""

    process: subprocess.Popen[bytes]
    log_file: Path
    url: str
    observe_url: str | None

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False)

    def resident_mib(self) -> int:
        """Memory that the process holds now."""
        [line] = [
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS")
        ]
        return int(line.split()[1]) // 1024


Start = Callable[..., Serving]


def clean_environment(**more: str) -> Mapping[str, str]:
    """This process's, without settings of ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GPU_EXTENDER_")}
    return kept | {"PYTHONWARNINGS": "error::ResourceWarning"} | more


def serve_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "extender", "serve", *options]


@pytest.fixture(scope="session")
def start_anywhere(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ExitStack], Start]:
    """How to start services that end with a stack."""

    def on(stack: ExitStack) -> Start:
        def start(*options: str, **environment: str) -> Serving:
            log_file = tmp_path_factory.mktemp("serving") / "log"
            with log_file.open("wb") as log:
                process = subprocess.Popen(
                    serve_command("--port", "0", *options), stderr=log, env=clean_environment(**environment)
                )
            stack.callback(_stop, process)
            told = _first_line(process, log_file)
            return Serving(process, log_file, told["address"], told["observe"])

        return start

    return on


@pytest.fixture
def start(start_anywhere: Callable[[ExitStack], Start]) -> Iterator[Start]:
    """Start a service that ends with the test."""
    with ExitStack() as stack:
        yield start_anywhere(stack)


@pytest.fixture(scope="session")
def cluster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with one GPU node and a pending pod."""
    from tests.builders import make_node, make_pod

    items = [make_node("n").gpus(2, mib=81920).build(), make_pod("waiting").gpu_fraction("0.5").build()]
    path = tmp_path_factory.mktemp("cluster") / "cluster.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return path


def _first_line(process: subprocess.Popen[bytes], log_file: Path) -> Any:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        first, newline, _ = log_file.read_text().partition("\n")
        if newline:
            return json.loads(first)
        time.sleep(0.02)
    raise AssertionError(f"no service: {process.poll()}: {log_file.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _ControlPlaneApart(LoadGroupScheduling):  # type: ignore[misc]
    """Tests that start a control plane run on one worker, one after the other: two at once starve each other."""

    def _split_scope(self, nodeid: str) -> str:
        return "controlplane" if nodeid.startswith("tests/controlplane/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling:
    """Needed while pytest and pytest-xdist do not agree on how a group is written."""
    return _ControlPlaneApart(config, log)
