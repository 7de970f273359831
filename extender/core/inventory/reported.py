"""What the devices of a node have told of their memory, where its labels do not: an annotation of the Node.

::

    gpu-extender.io/reported-memory: "<boot id>: GPU-1=40960 GPU-2=81920"

It holds for that boot only: a node that comes back may have other cards, or be another machine's image. It is for
planning. Shares are counted against what the reservation pod of their own device has reported, so a forged value
places nothing that does not fit.
"""

from collections.abc import Mapping

from extender.core.fields import Json, child, text
from extender.core.inventory.gpu_labels import number
from extender.core.inventory.node_gpus import Reported
from extender.core.names import REPORTED_MEMORY


def read_reported(node: Json) -> Reported | None:
    """What was told in the node's present boot; None where nothing says which boot that is."""
    boot_id = text(child(node, "status", "nodeInfo"), "bootID")
    if not boot_id:
        return None
    boot, _, pairs = (text(child(node, "metadata", "annotations"), REPORTED_MEMORY) or "").partition(":")
    if boot != boot_id:
        return Reported()
    told = [_device(pair) for pair in pairs.split()]
    known = dict(device for device in told if device is not None)
    # What is not as we write it is asked for anew.
    return Reported(known, asked=True) if None not in told else Reported()


def reported_memory(boot_id: str, mib: Mapping[str, int]) -> str:
    """The annotation's value. ``mib``: device → MiB; empty where a device was asked and told nothing."""
    return f"{boot_id}: " + " ".join(f"{device}={size}" for device, size in sorted(mib.items()))


def _device(pair: str) -> tuple[str, int] | None:
    device, _, size = pair.partition("=")
    mib = number(size)
    return (device, mib) if device and mib else None
