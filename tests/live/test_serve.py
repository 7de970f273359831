"""``serve`` against a cluster, from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no credentials for Kubernetes in the service account of this pod: "),
        ("", "no credentials for Kubernetes in {file}: "),
        (json.dumps({"apiVersion": "v1", "kind": "Config"}), "no credentials for Kubernetes in {file}: "),
    ],
)
def test_without_credentials_it_ends_with_one_line(tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "config"
    options = ["--port=0"]
    if content is not None:
        file.write_text(content)
        options.append(f"--kubeconfig={file}")
    command = [sys.executable, "-m", "extender", "serve", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=60)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("gpu-extender: " + sentence.format(file=file))
    assert done.stdout == ""


def test_a_kubeconfig_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "extender", "serve", f"--kubeconfig={tmp_path / 'nope'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"gpu-extender: kubeconfig is {tmp_path / 'nope'} but there is no such file\n"
