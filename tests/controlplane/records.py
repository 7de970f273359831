"""Node records as somebody else writes them: a process that has died, or another extender."""

import json
from typing import Any, Final

from tests.controlplane.client import Client
from tests.controlplane.gpu_node import RESERVATIONS, GpuNode

Json = dict[str, Any]
RECORDS: Final = f"/api/v1/namespaces/{RESERVATIONS}/configmaps"


async def forge_entry(admin: Client, node: GpuNode, pod: Json, mib: int, attempt: str = "dead-1") -> None:
    """A process has died after it wrote this pod's entry: whether its Binding is on the way, nobody knows.

    The node has one shared GPU.
    """
    config_map, record = await _read(admin, node)
    [gpu] = record["gpus"].values()
    who = f"default/{pod['metadata']['name']}"
    gpu["shares"][pod["metadata"]["uid"]] = {"pod": who, "mib": mib, "try": attempt}
    await _write(admin, config_map, record)


async def drop_entry(admin: Client, node: GpuNode, pod: Json) -> None:
    """Somebody has found out that the pod's Binding never lands."""
    config_map, record = await _read(admin, node)
    for gpu in record["gpus"].values():
        gpu["shares"].pop(pod["metadata"]["uid"], None)
    await _write(admin, config_map, record)


async def _read(admin: Client, node: GpuNode) -> tuple[Json, Json]:
    found = (await admin.get(RECORDS))["items"]
    [config_map] = [record for record in found if (record.get("data") or {}).get("node") == node.name]
    return config_map, json.loads(config_map["data"]["record"])


async def _write(admin: Client, config_map: Json, record: Json) -> None:
    """Raises Answer where it has changed since it was read."""
    config_map["data"]["record"] = json.dumps(record)
    await admin.send("PUT", f"{RECORDS}/{config_map['metadata']['name']}", config_map)
