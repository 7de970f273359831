"""The picture that ``inspect`` shows: every node, every GPU, who holds what (API: section 4).

With no change between, two pictures are equal: no clock, age or claim in them.
"""

from collections.abc import Sequence
from typing import Any

from extender.core.values import NodeState, SharedGpu

Json = dict[str, Any]


def picture(states: Sequence[NodeState]) -> Json:
    """The whole picture of ``ledger.snapshot()``; memory in MiB."""
    return {
        "nodes": [_node(state) for state in states],
        "totals": {
            "gpus": sum(state.inventory.physical_gpus or 0 for state in states),
            "memoryMiB": sum(state.inventory.total_mib for state in states),
            "usedMiB": sum(_used(state) for state in states),
            "pods": sum(_holders(state) for state in states),
        },
    }


def _node(state: NodeState) -> Json:
    inventory = state.inventory
    return {
        "name": state.name,
        "product": inventory.product,
        "mode": inventory.mode,
        "physicalGpus": inventory.physical_gpus,
        "wholeGpus": inventory.whole_gpus,
        "memoryMiB": inventory.memory_mib,
        "units": dict(inventory.units),
        "slices": {
            resource: {"count": kind.count, "memoryMiB": kind.memory_mib} for resource, kind in inventory.slices.items()
        },
        "unusable": inventory.unusable or state.closed,
        "wholeGpusHeld": state.whole_held,
        "sharedGpus": [_shared_gpu(gpu) for gpu in state.gpus],
    }


def _shared_gpu(gpu: SharedGpu) -> Json:
    return {
        "id": gpu.id,
        "uuid": gpu.uuid,
        "memoryMiB": gpu.memory_mib,
        "usedMiB": gpu.used_mib,
        "state": gpu.state.value,
        "shares": [
            {
                "namespace": share.namespace,
                "pod": share.pod,
                "uid": share.uid,
                "memoryMiB": share.mib,
                "state": share.state.value,
            }
            for share in gpu.shares
        ],
    }


def _card(state: NodeState) -> int:
    return state.inventory.memory_mib or 0


def _used(state: NodeState) -> int:
    return sum(gpu.used_mib for gpu in state.gpus) + state.whole_held * _card(state)


def _holders(state: NodeState) -> int:
    return len({share.uid for gpu in state.gpus for share in gpu.shares}) + state.whole_pods
