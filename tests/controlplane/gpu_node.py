"""One node as its kubelet and device plugin see it: who was admitted, and which devices were given to whom.

No I/O and no line of the product's: the referee feeds it what the API shows and writes what it decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any, Final
from uuid import UUID

from tests.controlplane.environment import environments

Pod = Mapping[str, Any]

RESERVATIONS: Final = "gpu-reservations"
SHARES: Final = ("gpu-fraction", "gpu-memory")
VISIBLE_DEVICES: Final = "gpu-extender.io/visible-devices"
MEMORY_MIB: Final = "gpu-extender.io/memory-mib"
_SUFFIXES: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or a MIG instance."""

    uuid: str
    mib: int
    resource: str = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Rejection:
    """What the kubelet writes into the status of a pod that it does not admit."""

    reason: str
    message: str


@dataclass(slots=True)
class Admitted:
    """A pod whose processes run."""

    pod: Pod
    #: What the device plugin gave it.
    devices: tuple[Device, ...]
    #: What its annotations said when its container last started: device and MiB.
    shares: tuple[tuple[str, int], ...]
    demand: Mapping[str, int]
    #: Its user's words when it came: what he writes later changes nothing.
    asked: Mapping[str, str]
    #: container → variables, as they were when it last started. A running process never sees another value.
    environments: Mapping[str, Mapping[str, str]]
    restarts: int = 0
    #: False where its container cannot start, because its device does not exist any more.
    running: bool = True

    @property
    def name(self) -> str:
        """Namespace and name."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    @property
    def sees(self) -> set[str] | None:
        """The devices that its variables show it; None where it has no such variable, as without admission."""
        found = [variables.get("NVIDIA_VISIBLE_DEVICES") for variables in self.environments.values()]
        named = [value for value in found if value is not None]
        return {uuid for value in named for uuid in value.split(",") if uuid not in ("", "void")} if named else None

    @property
    def is_reservation(self) -> bool:
        """Whether it is one of the extender's own."""
        return bool(self.pod["metadata"]["namespace"] == RESERVATIONS)

    @property
    def asks_for_share(self) -> bool:
        """Whether its user wants a share of a GPU."""
        return any(key in self.asked for key in SHARES)


@dataclass(slots=True)
class GpuNode:
    """A kubelet with its device plugin."""

    name: str
    #: cpu in milli, memory in bytes, pods.
    room: Mapping[str, int]
    devices: dict[str, Device]
    random: Random
    boot_id: str
    unhealthy: set[str] = field(default_factory=set)
    admitted: dict[str, Admitted] = field(default_factory=dict)

    def admit(self, pod: Pod) -> Admitted | Rejection:
        """In the kubelet's order: devices first, then room. What is admitted is accounted at once."""
        demand = requests(pod)
        given = self._allocate(demand)
        if isinstance(given, Rejection):
            return given
        short = next((name for name in self.room if self._used(name) + demand.get(name, 0) > self.room[name]), None)
        if short is not None:
            numbers = f"requested: {demand[short]}, used: {self._used(short)}, capacity: {self.room[short]}"
            return Rejection(f"OutOf{short}", f"Node didn't have enough resource: {short}, {numbers}")
        admitted = Admitted(pod, given, shares(pod), demand, dict(annotations(pod)), environments(pod))
        self.admitted[pod["metadata"]["uid"]] = admitted
        return admitted

    def allocatable(self) -> dict[str, int]:
        """Healthy devices per resource."""
        counts = dict.fromkeys((device.resource for device in self.devices.values()), 0)
        for device in self.devices.values():
            counts[device.resource] += device.uuid not in self.unhealthy
        return counts

    def reboot(self) -> list[Admitted]:
        """Every process ends. Returns the pods that cannot come back: the plugin has no device for them yet.

        The others, those that hold shares among them, start again with what their annotations say.
        """
        self.boot_id = random_uuid(self.random)
        refused = [admitted for admitted in self.admitted.values() if admitted.devices]
        self.admitted = {uid: admitted for uid, admitted in self.admitted.items() if not admitted.devices}
        for admitted in self.admitted.values():
            admitted.restarts += 1
            admitted.shares = shares(admitted.pod)
            admitted.environments = environments(admitted.pod)
            admitted.running = all(uuid in self.devices for uuid, _ in admitted.shares)
        return refused

    def reimage(self) -> list[Admitted]:
        """A reboot after which all devices have other UUIDs."""
        others = [Device(new_device_uuid(self.random, d.uuid), d.mib, d.resource) for d in self.devices.values()]
        self.devices = {device.uuid: device for device in others}
        self.unhealthy = set()
        return self.reboot()

    def _allocate(self, demand: Mapping[str, int]) -> tuple[Device, ...] | Rejection:
        held = {device.uuid for admitted in self.admitted.values() for device in admitted.devices} | self.unhealthy
        given: list[Device] = []
        for resource in self.allocatable():
            free = [
                device for device in self.devices.values() if device.resource == resource and device.uuid not in held
            ]
            number = demand.get(resource, 0)
            if number > len(free):
                text = f"Allocate failed due to requested number of devices unavailable for {resource}."
                text += f" Requested: {number}, Available: {len(free)}, which is unexpected"
                return Rejection("UnexpectedAdmissionError", text)
            given += self.random.sample(free, number)
        return tuple(given)

    def _used(self, resource: str) -> int:
        return sum(admitted.demand.get(resource, 0) for admitted in self.admitted.values())


def gpu_node_of(manifest: Mapping[str, Any], random: Random, devices: Sequence[Device] | None = None) -> GpuNode:
    """The machine of a Node; its devices: as many GPUs as it has, of the memory that its labels say."""
    metadata, capacity = manifest["metadata"], manifest["status"]["capacity"]
    if devices is None:
        mib = int(metadata["labels"].get("nvidia.com/gpu.memory", 0))
        devices = [Device(new_device_uuid(random), mib) for _ in range(int(capacity.get("nvidia.com/gpu", 0)))]
    room = {resource: quantity(resource, capacity[resource]) for resource in ("cpu", "memory", "pods")}
    by_uuid = {device.uuid: device for device in devices}
    return GpuNode(metadata["name"], room, by_uuid, Random(random.random()), random_uuid(random))


def annotations(pod: Pod) -> Mapping[str, str]:
    """The annotations."""
    return pod["metadata"].get("annotations") or {}


def shares(pod: Pod) -> tuple[tuple[str, int], ...]:
    """Device and MiB of each share, as the container's environment says it. What is unreadable is 0 MiB of ''."""
    written = annotations(pod).get(VISIBLE_DEVICES)
    if written is None:
        return ()
    uuids = written.split(",")
    sizes = annotations(pod).get(MEMORY_MIB, "").split(",")
    if len(sizes) == 1:
        sizes *= len(uuids)
    if len(sizes) != len(uuids) or not all(size.isdecimal() for size in sizes):
        return (("", 0),)
    return tuple((uuid, int(size)) for uuid, size in zip(uuids, sizes, strict=True))


def requests(pod: Pod) -> dict[str, int]:
    """cpu in milli, everything else in base units, and one pod slot."""
    total: dict[str, int] = {}
    for container in pod["spec"]["containers"]:
        for name, amount in _requests(container).items():
            total[name] = total.get(name, 0) + amount
    for container in pod["spec"].get("initContainers") or ():
        for name, amount in _requests(container).items():
            total[name] = max(total.get(name, 0), amount)
    return {**total, "pods": 1}


def quantity(name: str, text: object) -> int:
    """A quantity of that resource; cpu in milli."""
    number = str(text)
    if number.endswith("m"):
        return -(-int(number[:-1]) // (1 if name == "cpu" else 1000))
    digits = number.rstrip("kKMGTi")
    exact = Fraction(digits) * _SUFFIXES[number[len(digits) :]] * (1000 if name == "cpu" else 1)
    return -(-exact.numerator // exact.denominator)


def random_uuid(random: Random) -> str:
    """A UUID that depends on the seed only."""
    return str(UUID(int=random.getrandbits(128), version=4))


def new_device_uuid(random: Random, like: str = "GPU-") -> str:
    """A device's UUID, of the kind of another one."""
    return ("MIG-" if like.startswith("MIG-") else "GPU-") + random_uuid(random)


def _requests(container: Mapping[str, Any]) -> dict[str, int]:
    listed = container.get("resources") or {}
    merged = {**(listed.get("limits") or {}), **(listed.get("requests") or {})}
    return {name: quantity(name, text) for name, text in merged.items()}
