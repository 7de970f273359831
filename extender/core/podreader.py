"""From a pod in the API to what it holds of its node.

Admission should keep placement annotations honest; the ledger does not rely on it. What cannot be read
is never taken for "holds nothing": the pod is marked undecodable and its node gives out no device.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from extender.core import names
from extender.core.device_report import problem_of
from extender.core.enforcement import for_container
from extender.core.errors import InputError
from extender.core.fields import child, children
from extender.core.requests import GpuRequest
from extender.core.requests.resources import requested
from extender.core.values import USUAL_GRACE, PodOnNode, Reservation, ShareOnGpu

Pod = Mapping[str, Any]

#: Of these, or of the dialect for each container, every pod that asks for a share has one.
_ASKING = frozenset({names.GPU_FRACTION, names.GPU_MEMORY})
_CONTAINER_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def uid_of(pod: Pod) -> str:
    """The pod's UID, or an empty string."""
    return str(child(pod, "metadata").get("uid") or "")


def namespaced_name(pod: Pod) -> tuple[str, str]:
    """Namespace and name."""
    metadata = child(pod, "metadata")
    return str(metadata.get("namespace") or "default"), str(metadata.get("name") or "")


def node_of(pod: Pod) -> str | None:
    """The node that the pod is bound to, or None."""
    return child(pod, "spec").get("nodeName") or None


def annotations_of(pod: Pod) -> Mapping[str, Any]:
    """The pod's annotations; empty where there are none."""
    return child(pod, "metadata", "annotations")


def is_reservation(pod: Pod) -> bool:
    """Whether this is a reservation pod: in their namespace, and one that asks for a device.

    Only the extender should create pods there; one that asks for none holds none, whatever it says.
    """
    return is_in_reservations(pod) and any(resource.startswith(names.NVIDIA_DOMAIN) for resource in _resources(pod)[0])


def is_in_reservations(pod: Pod) -> bool:
    """Whether the pod is in the namespace where only the extender should create any."""
    return namespaced_name(pod)[0] == names.RESERVATION_NAMESPACE


def has_ended(pod: Pod) -> bool:
    """Succeeded or Failed, and no container running.

    A deletion that was only asked for ends nothing: the process still runs.
    """
    if child(pod, "status").get("phase") not in ("Succeeded", "Failed"):
        return False
    return not any(_runs(status) for status in _container_statuses(pod))


def is_unschedulable(pod: Pod) -> bool:
    """Whether kube-scheduler has tried to place the pod and could not."""
    conditions = children(child(pod, "status"), "conditions")
    tried = any(c.get("type") == "PodScheduled" and c.get("reason") == "Unschedulable" for c in conditions)
    return tried and node_of(pod) is None


def pod_on_node(pod: Pod) -> PodOnNode | None:
    """What a bound user pod holds; None if it is unbound or has ended."""
    node = node_of(pod)
    if node is None or has_ended(pod):
        return None
    namespace, name = namespaced_name(pod)
    annotations = annotations_of(pod)
    shares, undecodable = _shares(annotations)
    resources, unreadable = _resources(pod)
    return PodOnNode(
        uid=uid_of(pod),
        namespace=namespace,
        name=name,
        node=node,
        resources=resources,
        shares=shares,
        compute_mode=_compute_mode(pod),
        observed=True,
        attempt=str(annotations[names.TRY]) if annotations.get(names.TRY) else None,
        undecodable=undecodable or unreadable,
        unserved=not (shares or undecodable) and _asks_for_share(pod),
        grace=grace_of(pod),
    )


def unbound_shares(pods: Iterable[Pod]) -> Iterator[tuple[str, str, str]]:
    """Namespace, name and UID of those that ask for a share and wait."""
    for pod in pods:
        if node_of(pod) is None:
            request = GpuRequest.from_pod(pod)
            if isinstance(request, GpuRequest) and request.share is not None:
                yield (*namespaced_name(pod), uid_of(pod))


def reservation_of(pod: Pod) -> Reservation | None:
    """A reservation pod, bound or about to be: it may run on one node only. None where nothing names a node."""
    node = node_of(pod) or _required_node(pod)
    if node is None:
        return None
    annotations = annotations_of(pod)
    memory_mib, undecodable = _device_memory(annotations)
    return Reservation(
        id=namespaced_name(pod)[1],
        node=node,
        uid=uid_of(pod),
        device=annotations.get(names.DEVICE) or None,
        memory_mib=memory_mib,
        boot_id=annotations.get(names.BOOT_ID) or None,
        resources={r: n for r, n in _resources(pod)[0].items() if not r.startswith(names.NVIDIA_DOMAIN)},
        closing=bool(child(pod, "metadata").get("deletionTimestamp") or annotations.get(names.CLOSED_BECAUSE)),
        ended=has_ended(pod),
        undecodable=undecodable,
        problem=problem_of(annotations),
        closed_because=annotations.get(names.CLOSED_BECAUSE) or None,
        unschedulable=is_unschedulable(pod),
        why=_why_not_running(pod),
    )


def lingers(pod: Pod, *, seen: bool = True) -> int:
    """Seconds that the processes of a pod may outlive its object: 0 for all that the kubelet has ended.

    Who deletes with grace period 0 takes the object away while the kubelet still gives the processes their own time.
    ``seen``: whether ``pod`` is its last version; else it may have been bound, and deleted by force, since.
    """
    forced = node_of(pod) is not None and child(pod, "metadata").get("deletionGracePeriodSeconds") == 0
    if has_ended(pod) or (seen and not forced):
        return 0
    statuses = _container_statuses(pod)
    if statuses and not any(_runs(status) for status in statuses):
        return 0
    return grace_of(pod)


def grace_of(pod: Pod) -> int:
    """Seconds that the kubelet gives its processes to end."""
    grace = child(pod, "spec").get("terminationGracePeriodSeconds")
    return grace if isinstance(grace, int) and grace >= 0 else USUAL_GRACE


def placement_annotations(pod: PodOnNode, containers: tuple[str, ...]) -> dict[str, str]:
    """What the Binding writes on a pod that holds shares. ``_shares`` reads it back.

    ``memory-mib`` is the share on each device: one number, or one per device where they differ.
    """
    devices = ",".join(share.uuid or "" for share in pod.shares)
    sizes = [str(share.mib) for share in pod.shares]
    written = {
        names.SHARED_GPUS: ",".join(share.gpu_id for share in pod.shares),
        names.VISIBLE_DEVICES: devices,
        names.MEMORY_MIB: sizes[0] if len(set(sizes)) == 1 else ",".join(sizes),
    }
    for name in containers:
        written |= for_container(name, names.DEVICES_SUFFIX, devices)
    return written


def _container_statuses(pod: Pod) -> list[Mapping[str, Any]]:
    return [found for kind in _CONTAINER_STATUSES for found in children(child(pod, "status"), kind)]


def _runs(status: Mapping[str, Any]) -> bool:
    # Only `startedAt` is in there, and it may be missing: that `running` is there says it.
    return isinstance(child(status, "state").get("running"), Mapping)


def _required_node(pod: Pod) -> str | None:
    """The node that ``reservation_pod`` has written into the pod's affinity."""
    required = child(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    fields = [field for term in children(required, "nodeSelectorTerms") for field in children(term, "matchFields")]
    values = fields[0].get("values") if len(fields) == 1 else None
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else None


def _why_not_running(pod: Pod) -> str | None:
    waiting = (child(status, "state", "waiting").get("reason") for status in _container_statuses(pod))
    reasons = [child(pod, "status").get("reason"), *waiting]
    return next((str(reason) for reason in reasons if reason), None)


def _shares(annotations: Mapping[str, Any]) -> tuple[tuple[ShareOnGpu, ...], str | None]:
    written = [annotations.get(key) for key in (names.SHARED_GPUS, names.VISIBLE_DEVICES, names.MEMORY_MIB)]
    if not any(written):
        return (), None
    ids, devices, sizes = ([part.strip() for part in str(value or "").split(",")] for value in written)
    if len(sizes) == 1:
        sizes *= len(ids)
    if not len(ids) == len(devices) == len(sizes):
        return (), f"{names.SHARED_GPUS}, {names.VISIBLE_DEVICES} and {names.MEMORY_MIB} differ in length"
    if not all(map(_all_different, (ids, devices))):
        return (), f"{names.SHARED_GPUS} and {names.VISIBLE_DEVICES} must name different devices"
    mib = [_positive(size) for size in sizes]
    if any(size is None for size in mib):
        return (), f"{names.MEMORY_MIB} must be positive integers"
    return tuple(ShareOnGpu(*share) for share in zip(ids, devices, [m or 0 for m in mib], strict=True)), None


def _all_different(texts: Sequence[str]) -> bool:
    return all(texts) and len(set(texts)) == len(texts)


def _device_memory(annotations: Mapping[str, Any]) -> tuple[int | None, str | None]:
    text = annotations.get(names.DEVICE_MEMORY_MIB)
    if text is None:
        return None, None
    mib = _positive(str(text))
    return mib, None if mib else f"{names.DEVICE_MEMORY_MIB} must be a positive integer"


def _positive(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        return None
    return int(text) or None


def _resources(pod: Pod) -> tuple[Mapping[str, int], str | None]:
    try:
        return requested(pod), None
    except InputError as error:
        return {}, str(error)


def _asks_for_share(pod: Pod) -> bool:
    # Most pods have no such annotation, and a rebuild reads many.
    keys = annotations_of(pod).keys()
    if keys.isdisjoint(_ASKING) and not any(str(key).startswith(names.CONTAINER_PREFIX) for key in keys):
        return False
    request = GpuRequest.from_pod(pod)
    return isinstance(request, GpuRequest) and request.share is not None


def _compute_mode(pod: Pod) -> str:
    if not any(str(key).endswith(names.COMPUTE_MODE_SUFFIX) for key in annotations_of(pod)):
        return names.TIME_SLICING  # Most pods say nothing, and a rebuild reads many.
    request = GpuRequest.from_pod(pod)
    if isinstance(request, GpuRequest) and request.share is not None:
        return request.share.compute_mode
    return names.TIME_SLICING
