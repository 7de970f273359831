"""The layers of pyproject.toml: kept, and a contract that is broken fails."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BROKEN = {
    "Imports point downwards only": ("core/claims.py", "import extender.service"),
    "The core is pure": ("core/claims.py", "import random"),
    "Only extender.kube knows the Kubernetes client": ("binding/bind.py", "import kubernetes"),
    "Only extender.agent.nvml knows NVIDIA's library": ("binding/bind.py", "import pynvml"),
    "The agent is small": ("agent/report.py", "import fastapi"),
}


def contracts() -> list[str]:
    """The sentences of the contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [str(contract["name"]) for contract in settings["contracts"]]


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(directory)},
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(ROOT / "extender", tmp_path / "extender", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept() -> None:
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout


def test_there_is_a_way_to_break_each_contract() -> None:
    assert [name.partition(":")[0] for name in contracts()] == list(BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_contract_fails(tree: Path, name: str) -> None:
    file, line = BROKEN[name]
    path = tree / "extender" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    found = lint(tree)
    assert found.returncode == 1
    [whole_name] = [contract for contract in contracts() if contract.startswith(name)]
    assert f"{whole_name} BROKEN" in " ".join(found.stdout.split())
