"""What GPU feature discovery (GFD) writes about one kind of device: a node's GPUs, or one MIG profile.

Both use the same attributes: ``nvidia.com/gpu.memory``, ``nvidia.com/mig-1g.10gb.memory``. A key is always
built from the known name, never split at dots: profiles contain dots themselves (``1g.24gb.me.all``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extender.core.inventory.node_gpus import MPS, NONE, TIME_SLICING, UNKNOWN

MIB: Final = 1 << 20
_SHARED: Final = "-SHARED"
_MIG: Final = "-MIG-"
_MIG_INVALID: Final = "-MIG-INVALID"
_DIGITS: Final = 9
# As many as a number of bytes has.
_DIGITS_OF_MEMORY: Final = 15


@dataclass(frozen=True, slots=True)
class DeviceLabels:
    """The labels of one kind of device; None where a label is absent."""

    product: str | None
    #: Of one device, never 0: None where the label is absent, 0 or unreadable.
    memory_mib: int | None
    #: Devices: GPUs, MIG parents included; MIG slices with the strategy ``single``.
    count: int | None
    #: Units per device. 0: every GPU is in MIG mode.
    replicas: int | None
    strategy: str | None
    #: A number that decides about sharing is no number: nothing here may be trusted.
    garbled: bool
    #: Somebody has described the devices. Without a description, units may be replicas.
    described: bool

    @property
    def mig(self) -> bool:
        """Whether the product names a MIG slice, as with the strategy ``single``."""
        return self.product is not None and _MIG in self.product and not self.invalid

    @property
    def invalid(self) -> bool:
        """Whether GFD found a mix of devices that the strategy ``single`` does not allow."""
        return self.strategy == "" or (self.product or "").removesuffix(_SHARED).endswith(_MIG_INVALID)

    def sharing(self, renamed: bool) -> str:
        """How the device plugin shares each device: ``none``, ``time-slicing``, ``mps`` or ``unknown``."""
        tells = renamed or (self.replicas or 0) > 1 or (self.product or "").endswith(_SHARED)
        if self.garbled or not self.described:
            return UNKNOWN
        if self.strategy in (TIME_SLICING, MPS):
            return self.strategy
        if self.strategy is None and tells:
            # GFD before 0.15 does not name the strategy, and knew only this one.
            return TIME_SLICING
        return NONE if self.strategy in (None, NONE) and not tells else UNKNOWN

    def units_per_device(self, sharing: str) -> int | None:
        """How many units stand for one device; None where the labels do not say."""
        if sharing == NONE:
            return 1
        return self.replicas if sharing != UNKNOWN and self.replicas else None

    def devices(self, capacity: int, sharing: str) -> int | None:
        """How many devices ``capacity`` units are; None where the labels do not say."""
        factor = self.units_per_device(sharing)
        return None if factor is None or capacity % factor else capacity // factor


def device_labels(labels: Mapping[str, str], prefix: str) -> DeviceLabels:
    """The labels that start with ``prefix``: ``nvidia.com/gpu``, ``nvidia.com/mig-1g.10gb``."""
    product, memory, count, replicas, strategy = (
        labels.get(f"{prefix}.{attribute}")
        for attribute in ("product", "memory", "count", "replicas", "sharing-strategy")
    )
    return DeviceLabels(
        product=product or None,
        memory_mib=_mib(memory),
        count=number(count),
        replicas=number(replicas),
        strategy=strategy,
        garbled=any(text is not None and number(text) is None for text in (count, replicas)),
        described=any(text is not None for text in (product, memory, count, replicas, strategy)),
    )


def number(text: str | None, digits: int = _DIGITS) -> int | None:
    """A label's decimal number, 0 or more, of at most so many digits; None for anything else."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > digits:
        return None
    return int(text)


def _mib(text: str | None) -> int | None:
    """MiB; very old GFD wrote bytes, and no GPU has a tebibyte."""
    value = number(text, _DIGITS_OF_MEMORY) or 0
    return (value // MIB if value >= MIB else value) or None
