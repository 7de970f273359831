"""From Node objects, ResourceSlices and ResourceClaims to the ledger's nodes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from extender.core import names
from extender.core.errors import InputError
from extender.core.fields import child, text
from extender.core.inventory import dra_held, dra_holders, group_slices, read_node
from extender.core.requests.quantity import parse_quantity
from extender.core.values import Node

Object = Mapping[str, Any]

_MILLI = 1000


def read_nodes(nodes: Sequence[Object], slices: Sequence[Object] = (), claims: Sequence[Object] = ()) -> Iterator[Node]:
    """Every node, those that only a ResourceSlice names included; in the order given."""
    by_node = group_slices(slices)
    claimed = {name: (gpus, 0) for name, gpus in dra_held(claims, by_node).items()}
    for name, pods in dra_holders(claims, by_node).items():
        claimed[name] = (claimed[name][0], pods)
    seen: set[str] = set()
    for node in nodes:
        name = text(child(node, "metadata"), "name") or ""
        seen.add(name)
        yield _node(name, node, by_node.get(name, ()), *claimed.get(name, (0, 0)))
    for name in by_node:
        if name not in seen:
            yield _node(name, {}, by_node[name], *claimed.get(name, (0, 0)))


def _node(name: str, node: Object, slices: Sequence[Object], claimed_gpus: int, claiming_pods: int) -> Node:
    return Node(
        name=name,
        uid=text(child(node, "metadata"), "uid") or name,
        inventory=read_node(node, slices),
        allocatable=allocatable(node),
        boot_id=text(child(node, "status", "nodeInfo"), "bootID"),
        claimed_gpus=claimed_gpus,
        claiming_pods=claiming_pods,
    )


def allocatable(node: Object) -> dict[str, int]:
    """What pods may take of the node: cpu in milli, others in base units. What cannot be read is not there."""
    status = child(node, "status")
    amounts = child(status, "allocatable") or child(status, "capacity")
    found: dict[str, int] = {}
    for resource, value in amounts.items():
        try:
            amount = parse_quantity(value) * (_MILLI if resource == names.CPU else 1)
        except InputError:
            continue
        found[resource] = max(0, math.floor(amount))
    return found
