"""The load test's own account: what it was told is held, and what that breaks.

It counts what is certainly held: from the moment a bind has answered until just before its pod's deletion is sent.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SHARED_GPUS = "gpu-extender.io/shared-gpus"
VISIBLE_DEVICES = "gpu-extender.io/visible-devices"
MEMORY_MIB = "gpu-extender.io/memory-mib"


@dataclass
class Account:
    """Every GPU of a cluster of equal nodes."""

    card_mib: int
    gpus_per_node: int
    #: (node, device) → pod UID → MiB
    shares: dict[tuple[str, str], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    #: node → pod UID → whole GPUs
    whole: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    violations: list[str] = field(default_factory=list)

    def bound(self, pod: Mapping[str, Any], node: str, asked_mib: int, devices: int, whole: int) -> None:
        """The extender says that the pod is bound: count it, and look for what cannot be."""
        metadata, annotations = pod["metadata"], pod["metadata"].get("annotations") or {}
        uid, name = metadata["uid"], metadata["name"]
        if pod["spec"].get("nodeName") != node:
            self.violations.append(f"{name} is on {pod['spec'].get('nodeName')}, was bound to {node}")
        if whole:
            self.whole[node][uid] = whole
        if asked_mib:
            given = [device for device in annotations.get(VISIBLE_DEVICES, "").split(",") if device]
            if len(set(given)) != devices or len(given) != devices:
                self.violations.append(f"{name} asked for {devices} devices, was given {given}")
            if annotations.get(MEMORY_MIB) != str(asked_mib):
                self.violations.append(f"{name} asked for {asked_mib} MiB, got {annotations.get(MEMORY_MIB)}")
            for device in given:
                self.shares[node, device][uid] = asked_mib
        self._check(node)

    def ended(self, uid: str, node: str) -> None:
        """The pod's deletion is about to be sent."""
        self.whole[node].pop(uid, None)
        for (where, _), held in self.shares.items():
            if where == node:
                held.pop(uid, None)

    def _check(self, node: str) -> None:
        in_use = 0
        for (where, device), held in self.shares.items():
            if where == node and held:
                in_use += 1
                if sum(held.values()) > self.card_mib:
                    self.violations.append(f"{device} on {node}: {sum(held.values())} of {self.card_mib} MiB")
        in_use += sum(self.whole[node].values())
        if in_use > self.gpus_per_node:
            self.violations.append(f"{node}: {in_use} GPUs in use, it has {self.gpus_per_node}")

    def compare(self, inspect: Mapping[str, Any]) -> None:
        """At the end, with nothing under way: ``/inspect`` must say the same."""
        theirs = {
            (node["name"], gpu["uuid"]): {share["uid"]: share["memoryMiB"] for share in gpu["shares"]}
            for node in inspect["nodes"]
            for gpu in node["sharedGpus"]
        }
        ours = {where: held for where, held in self.shares.items() if held}
        if theirs != ours:
            different = [where for where in {*theirs, *ours} if theirs.get(where) != ours.get(where)]
            self.violations.append(f"inspect differs on {len(different)} GPUs, such as {sorted(different)[:2]}")
        for node in inspect["nodes"]:
            mine = sum(self.whole[node["name"]].values())
            if node["wholeGpusHeld"] != mine:
                self.violations.append(f"{node['name']}: {node['wholeGpusHeld']} whole GPUs held, we hold {mine}")
