"""The extender asks the API server for what the manifests grant: never for more, and each right is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_node, make_pod
from tests.controlplane.gpu_node import Device
from tests.controlplane.process import PATIENCE
from tests.controlplane.records import forge_entry
from tests.controlplane.scene import BY_THE_TEST, Scene
from tests.controlplane.stage import Served
from tests.manifests import rights

pytestmark = pytest.mark.usefixtures("any_scheduler")

Json = dict[str, Any]
Right = tuple[str | None, str, str, str | None]
A100 = 81920


def requests(audit: Path) -> list[Json]:
    """What the extenders have asked for until now; watches when they began."""
    return [json.loads(line) for line in audit.read_text().splitlines()]


def is_used(right: Right, asked: list[Json]) -> bool:
    return any(right in _needed(request["verb"], request.get("objectRef", {})) for request in asked)


def _needed(verb: str, what: Json) -> list[Right]:
    """The rights, from the widest to the narrowest, of which the request needs one."""
    resource = "/".join(filter(None, [what.get("resource"), what.get("subresource")]))
    where = what.get("namespace")
    return [(scope, verb, resource, name) for scope in (None, where) for name in (None, what.get("name"))]


async def test_the_extender_uses_every_right_that_it_has_and_is_refused_nothing(
    scene: Scene, extender: Served, audit: Path
) -> None:
    """A share is bound, another after a fence, cards are opened for nothing and closed again, a node is asked what its
    cards are."""
    node = await scene.add(make_node("n").gpus(3, mib=A100))
    await scene.submit(make_pod("share").gpu_fraction("0.5"), make_pod("plain"))
    await scene.run("share", "plain")
    await scene.submit(make_pod("fenced").gpu_memory(10).spec(nodeSelector=BY_THE_TEST))
    pod = await scene.pod("fenced")
    await forge_entry(scene.admin, node, pod, mib=10)
    assert await extender.bind(pod, node.name) == ""
    await scene.add(make_node("unlabelled").gpus(1, mib=None).label("labels", "none"), [Device("GPU-rights", A100)])
    await scene.submit(make_pod("asks").gpu_memory(10).spec(nodeSelector={"labels": "none"}))
    await scene.run("asks")
    async with scene.refusing_bindings_of("refused"):
        await scene.submit(make_pod("refused").gpu_fraction("0.9").num_devices(2))
        await scene.until(lambda: scene.has_closed(2), PATIENCE, "what was opened for nothing is closed")

    asked = requests(audit)
    assert asked, "the audit log is empty"
    refused = [f"{each['verb']} {each['requestURI']}" for each in asked if each["responseStatus"]["code"] in (401, 403)]
    assert refused == []
    watches = [each["requestURI"] for each in asked if each["verb"] == "watch"]
    assert watches
    assert [uri for uri in watches if "allowWatchBookmarks=true" not in uri] == []
    unused = {right for right in rights("gpu-extender", "gpu-extender") if not is_used(right, asked)}
    assert unused == set()
