"""The scheduler verbs over TLS, as docs/configuration.md has it: kube-scheduler needs a certificate to be answered."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.builders import make_node, make_pod
from tests.controlplane.process import PATIENCE, free_port
from tests.controlplane.scene import Scene
from tests.controlplane.stage import QUICK, Served, Stage, configuration
from tests.test_docs import read
from tests.test_tls import Keys, make_keys

PAGE: Final = "docs/configuration.md"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def extender(stage: Stage, keys: Keys) -> Iterator[Served]:
    files: dict[str, Any] = {"tls_cert_file": keys.server, "tls_key_file": keys.server, "tls_client_ca_file": keys.ca}
    yield stage.start_extender("over-tls", **QUICK, **files, observe_port=free_port(), observe_host="127.0.0.1")
    stage.stop()


def on_the_page(served: Served, files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The manifests' extender with what the page changes; address and files are put in, nothing is added."""
    (text,) = re.findall(r"```yaml\n(extenders:.*?)```", read(PAGE), re.S)
    ((told,), (ours,)) = yaml.safe_load(text)["extenders"], configuration(served)["extenders"]
    assert set(told["tlsConfig"]) >= set(files)
    return [{**ours, **told, "urlPrefix": ours["urlPrefix"], "tlsConfig": {key: str(files[key]) for key in files}}]


@contextmanager
def asking(stage: Stage, served: Served, name: str, **files: Path) -> Iterator[Any]:
    """A kube-scheduler with these files runs meanwhile."""
    process = stage.start_scheduler(served, name, extenders=on_the_page(served, files))
    yield process
    process.kill()


@pytest.fixture
async def scene(stage: Stage) -> Any:
    async with Scene(stage) as scene:
        yield scene


async def test_a_share_runs_where_kube_scheduler_has_a_certificate_and_waits_where_it_has_none(
    scene: Scene, extender: Served, keys: Keys
) -> None:
    await scene.add(make_node("n").gpus(1, mib=8192))
    await scene.submit(make_pod("share").gpu_memory(1000))
    for name, files in {
        "without-certificate": {"caFile": keys.ca},
        "with-a-strangers": {"caFile": keys.ca, "certFile": keys.stranger, "keyFile": keys.stranger},
    }.items():
        with asking(scene.stage, extender, name, **files) as scheduler:
            await scene.until(lambda: tried(scene), PATIENCE, "kube-scheduler has not tried it")
            await scene.stay_pending("share")
            assert "tls" in scheduler.log.read_text().lower()
    with asking(scene.stage, extender, "with", caFile=keys.ca, certFile=keys.client, keyFile=keys.client):
        await scene.run("share")
    assert scene.referee.violations() == []


async def tried(scene: Scene) -> bool:
    """Whether kube-scheduler has told the pod's user anything."""
    return await scene.why("share") != ""
