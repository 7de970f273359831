"""The image, as far as it can be checked without a container engine.

The Dockerfile's own commands are run in an empty folder, with nothing in it but what the Dockerfile copies.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# The environment is made once, on one worker.
pytestmark = pytest.mark.xdist_group("dockerfile")

ROOT = Path(__file__).parent.parent
BUILD_TOOLS = ("apt", "apk", "gcc", "make", "uv", "install", "curl", "wget", "git")


@dataclass
class Stage:
    image: str
    name: str | None
    #: (keyword, the rest of the line), continuation lines joined.
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]

    def one(self, keyword: str) -> str:
        (rest,) = self.all(keyword)
        return rest


def stages() -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.M)
    found: list[Stage] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            image, _, name = rest.partition(" AS ")
            found.append(Stage(image, name or None))
        elif keyword:
            found[-1].instructions.append((keyword, rest.strip()))
    return found


BUILD, LAST = stages()
PREFIX = re.findall(r"UV_PROJECT_ENVIRONMENT=(\S+)", BUILD.one("ENV"))[0]


def copied() -> list[str]:
    """What the build takes from the checkout."""
    return [source for rest in BUILD.all("COPY") for source in rest.split()[:-1]]


def test_base_images_are_pinned_to_a_full_version_and_are_the_same() -> None:
    assert BUILD.image == LAST.image  # The environment's Python is the base image's.
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", BUILD.image)


def test_uv_is_the_one_of_the_makefile() -> None:
    pin = re.findall(r"^UV_PIN := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)[0]
    assert pin in BUILD.all("RUN")[0].split()


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert allowed == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_last_stage_copies_only_what_the_build_made() -> None:
    assert LAST.all("COPY") == [f"--from={BUILD.name} {PREFIX} {PREFIX}"]
    assert LAST.all("ADD") == []


def test_the_last_stage_has_no_build_tool() -> None:
    words = [word for rest in LAST.all("RUN") for word in shlex.split(rest)]
    assert [word for word in words if word in BUILD_TOOLS] == []
    # The base image brings pip: it goes.
    assert words[:2] == ["pip", "uninstall"]
    assert {"pip", "setuptools", "wheel"} <= set(words)


def test_it_runs_as_nobody() -> None:
    user = LAST.one("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = LAST.instructions[LAST.instructions.index(("USER", user)) + 1 :]
    assert not [word for word, _ in after if word in ("RUN", "COPY", "ADD")]


def test_entry_point_is_the_command_itself() -> None:
    assert json.loads(LAST.one("ENTRYPOINT")) == ["gpu-extender"]
    assert json.loads(LAST.one("CMD")) == ["serve"]
    assert f"PATH={PREFIX}/bin:$PATH" in LAST.one("ENV")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the build's `uv sync` lines make, in a folder with only the files copied."""
    uv = shutil.which("uv") or str(ROOT / ".venv-uv/bin/uv")
    if not Path(uv).exists():
        pytest.skip("needs uv, which make brings")
    context, venv = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("image") / "venv"
    for source in copied():
        of = ROOT / source
        (shutil.copytree if of.is_dir() else shutil.copy)(of, context / source)
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(venv), "UV_PYTHON_DOWNLOADS": "never"}
    for sync in [shlex.split(rest) for rest in BUILD.all("RUN") if rest.startswith("uv ")]:
        # Here the cache saves minutes; in an image it would only be dead weight.
        words = [uv, *(word for word in sync[1:] if word != "--no-cache"), "--quiet"]
        subprocess.run(words, cwd=context, env=environment, check=True, timeout=300)
    shutil.rmtree(context)
    return venv


def test_the_build_makes_a_command_that_needs_no_checkout(installed: Path, tmp_path: Path) -> None:
    command = [str(installed / "bin/gpu-extender"), "--version"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert "0.1.0" in ran.stdout
    assert not any((installed / "bin" / tool).exists() for tool in ("pip", "pytest", "ruff", "locust"))


@pytest.fixture
def serving(installed: Path, tmp_path: Path) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [str(installed / "bin/gpu-extender"), *json.loads(LAST.one("CMD"))]
    service = subprocess.Popen(
        [*command, "--snapshot", str(ROOT / "examples/cluster.yaml"), "--log-level", "error"],
        cwd=tmp_path,
        env={**os.environ, "GPU_EXTENDER_PORT": str(port)},
    )
    yield port
    service.terminate()
    assert service.wait(30) == 0


def _healthy(installed: Path, port: int) -> bool:
    """What the HEALTHCHECK says, run by the environment's own Python."""
    line = LAST.one("HEALTHCHECK")
    program, *arguments = json.loads(line[line.index("[") :])
    assert program == f"{PREFIX}/bin/python"
    command = [str(installed / "bin/python"), *arguments]
    environment = {**os.environ, "GPU_EXTENDER_PORT": str(port)}
    ran = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30)
    return ran.returncode == 0


def test_the_health_check_tells_a_live_service_from_a_dead_one(installed: Path, serving: int) -> None:
    deadline = time.monotonic() + 60
    while not _healthy(installed, serving) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert _healthy(installed, serving)
    assert not _healthy(installed, 1)
