"""The GPUs of a node as the API proves them: what there is, how it is shared, what a whole one holds.

``read`` is the door; the other files each know one source: feature-discovery labels, device-plugin resources, MIG
profiles, devices for virtual machines, DRA slices, reports, and the node's own state.
"""

from extender.core.inventory.dra import dra_held, dra_holders, group_slices
from extender.core.inventory.node_gpus import Inventory, Reported, Slice
from extender.core.inventory.read import read_node
from extender.core.inventory.refusals import MEMORY_UNKNOWN, REASON_TEXT
from extender.core.inventory.reported import reported_memory

__all__ = [
    "MEMORY_UNKNOWN",
    "REASON_TEXT",
    "Inventory",
    "Reported",
    "Slice",
    "dra_held",
    "dra_holders",
    "group_slices",
    "read_node",
    "reported_memory",
]
