"""The GPUs of a node as the API proves them: what there is, how it is shared, what a whole one holds.

``read`` is the door; the other files each know one source: feature-discovery labels, device-plugin resources, MIG
profiles, devices for virtual machines, DRA slices, and the node's own state.
"""

from extender.core.inventory.dra import dra_held, dra_holders, group_slices
from extender.core.inventory.node_gpus import Inventory, Slice
from extender.core.inventory.read import read_node
from extender.core.inventory.refusals import REASON_TEXT

__all__ = ["REASON_TEXT", "Inventory", "Slice", "dra_held", "dra_holders", "group_slices", "read_node"]
