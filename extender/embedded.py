"""A cluster in memory, loaded from what kubectl prints: a ``KubeApi`` that needs no cluster.

It answers as an API server does (UIDs, resource versions, conflicts) and plays, for reservation pods only, the
scheduler, device plugin and agent: such a pod is bound and reports a device at once, never one that something holds.
Nothing here awaits, so each call is one step.
"""

import copy
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from extender.binding.api import ConfigMap, Pod
from extender.binding.evidence import record_of
from extender.binding.records import config_map_of
from extender.core import names
from extender.core.errors import Conflict, NotFound, Refused
from extender.core.ledger import Ledger
from extender.core.nodereader import read_nodes
from extender.core.podreader import annotations_of, has_ended, is_in_reservations, namespaced_name, node_of, uid_of
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.requests.resources import requested
from extender.reflector import Reflector
from extender.snapshot import Snapshot

_DEVICES = uuid.UUID("5d0b3f0a-6f0e-4b53-9f0c-8b4b8d6c6a57")


class EmbeddedCluster:
    """Nodes and pods of a snapshot; every change reaches the ledger before the call returns."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._versions = count(1)
        self._pods: dict[tuple[str, str], Pod] = {}
        self._uids: set[str] = set()
        #: node → the keys of the pods that are bound to it
        self._on_node: dict[str, set[tuple[str, str]]] = {}
        self._config_maps: dict[tuple[str, str], ConfigMap] = {}
        self._watchers: list[Reflector] = []
        self._devices = snapshot.resource_slices, snapshot.resource_claims
        self._read = {node.name: node for node in read_nodes(snapshot.nodes, *self._devices)}
        self.nodes: dict[str, Mapping[str, Any]] = {n["metadata"]["name"]: n for n in snapshot.nodes}
        for pod in snapshot.pods:
            self._put(self._versioned(copy.deepcopy(dict(pod))))

    def attach(self, watcher: Reflector) -> None:
        """Show an extender everything, and from now on every change."""
        watcher.nodes(self._read.values())
        watcher.pods(self._pods.values())
        for config_map in self._config_maps.values():
            watcher.config_map(config_map)
        self._watchers.append(watcher)

    def detach(self, watcher: Reflector) -> None:
        """That extender is gone."""
        self._watchers.remove(watcher)

    def write_records(self, ledger: Ledger) -> None:
        """A snapshot shows no ConfigMaps; nothing is under way when it is loaded, so what is bound is all there is."""
        for name in self._read:
            record = record_of(ledger.pods(name), ledger.reservations(name))
            if any(True for _ in record.opened()):
                self._store_config_map(config_map_of(name, record))

    # --- KubeApi ------------------------------------------------------------------------------------------

    async def get_pod(self, namespace: str, name: str) -> Pod:
        """See KubeApi."""
        return copy.deepcopy(self._find(namespace, name))

    async def list_pods(self, node: str) -> list[Pod]:
        """See KubeApi."""
        return [copy.deepcopy(pod) for pod in self.pods() if (node_of(pod) or "") == node]

    async def create_pod(self, pod: Mapping[str, Any]) -> Pod:
        """See KubeApi. A reservation pod comes back bound, with a device."""
        stored = copy.deepcopy(dict(pod))
        key = namespaced_name(stored)
        if key in self._pods:
            raise Conflict(f'pods "{key[1]}" already exists in namespace {key[0]}')
        if uid_of(stored) in self._uids:
            raise Conflict(f"a pod with UID {uid_of(stored)} already exists")
        metadata = stored.setdefault("metadata", {})
        metadata["namespace"] = key[0]
        metadata["uid"] = metadata.get("uid") or str(uuid.uuid4())
        stored.setdefault("status", {"phase": "Pending"})
        if is_in_reservations(stored):
            self._start_reservation(stored)
        self._store(stored)
        return copy.deepcopy(stored)

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Pod:
        """See KubeApi."""
        pod = copy.deepcopy(self._find(namespace, name))
        uid = (patch.get("metadata") or {}).get("uid")
        if uid not in (None, uid_of(pod)):
            raise Refused(f"pod {namespace}/{name} has UID {uid_of(pod)}, not {uid}")
        _merge(pod, patch)
        self._store(pod)
        return copy.deepcopy(pod)

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """See KubeApi."""
        if name not in self.nodes:
            raise NotFound(f'nodes "{name}" not found')
        node = copy.deepcopy(dict(self.nodes[name]))
        uid = (patch.get("metadata") or {}).get("uid")
        if uid not in (None, node["metadata"].get("uid")):
            raise Refused(f"node {name} has UID {node['metadata'].get('uid')}, not {uid}")
        _merge(node, patch)
        self.nodes[name] = node
        self._read |= {read.name: read for read in read_nodes([node], *self._devices) if read.name == name}
        for watcher in self._watchers:
            watcher.nodes([self._read[name]])
        return node

    async def get_config_map(self, namespace: str, name: str) -> ConfigMap:
        """See KubeApi."""
        found = self._config_maps.get((namespace, name))
        if found is None:
            raise NotFound(f'configmaps "{name}" not found in namespace {namespace}')
        return copy.deepcopy(found)

    async def create_config_map(self, config_map: Mapping[str, Any]) -> ConfigMap:
        """See KubeApi."""
        if namespaced_name(config_map) in self._config_maps:
            raise Conflict(f'configmaps "{namespaced_name(config_map)[1]}" already exists')
        return self._store_config_map(config_map)

    async def put_config_map(self, config_map: Mapping[str, Any]) -> ConfigMap:
        """See KubeApi."""
        stands = await self.get_config_map(*namespaced_name(config_map))
        if config_map["metadata"].get("resourceVersion") != stands["metadata"]["resourceVersion"]:
            raise Conflict(f"the ConfigMap is at version {stands['metadata']['resourceVersion']}")
        return self._store_config_map(config_map)

    async def delete_pod(
        self, namespace: str, name: str, uid: str, _grace_seconds: int | None = None, version: str | None = None
    ) -> None:
        """See KubeApi. The pod is gone when this returns."""
        pod = self._find(namespace, name)
        if uid and uid_of(pod) != uid:
            raise Conflict(f"pod {namespace}/{name} has UID {uid_of(pod)}, not {uid}")
        if version not in (None, pod["metadata"]["resourceVersion"]):
            raise Conflict(f"pod {namespace}/{name} is at version {pod['metadata']['resourceVersion']}")
        del self._pods[namespace, name]
        self._uids.discard(uid_of(pod))
        self._on_node.get(node_of(pod) or "", set()).discard((namespace, name))
        for watcher in self._watchers:
            watcher.pod_gone(pod)

    async def bind_pod(self, binding: Mapping[str, Any]) -> None:
        """See KubeApi: one update sets the node and merges the annotations."""
        metadata = binding["metadata"]
        pod = self._find(metadata["namespace"], metadata["name"])
        self._may_bind(pod, metadata)
        bound = copy.deepcopy(pod)
        bound["spec"]["nodeName"] = binding["target"]["name"]
        merged = {**annotations_of(bound), **metadata.get("annotations", {})}
        if merged:
            bound["metadata"]["annotations"] = merged
        bound["status"] = {**(bound.get("status") or {}), "conditions": _scheduled(bound)}
        self._store(bound)

    # --- what users do ------------------------------------------------------------------------------------

    async def submit(self, pod: Mapping[str, Any]) -> Pod:
        """A user creates a pod. Raises Conflict, or Refused with the sentence that says why."""
        sentence = refusal(pod)
        if sentence is not None:
            raise Refused(sentence)
        return await self.create_pod(pod)

    def pods(self) -> Iterator[Pod]:
        """Every pod; not to be changed."""
        return iter(tuple(self._pods.values()))

    def find(self, namespace: str, name: str) -> Pod | None:
        """The pod, not to be changed, or None."""
        return self._pods.get((namespace, name))

    # --- inside -------------------------------------------------------------------------------------------

    def _find(self, namespace: str, name: str) -> Pod:
        pod = self._pods.get((namespace, name))
        if pod is None:
            raise NotFound(f'pods "{name}" not found in namespace {namespace}')
        return pod

    def _may_bind(self, pod: Pod, metadata: Mapping[str, Any]) -> None:
        if metadata.get("uid") and metadata["uid"] != uid_of(pod):
            raise Conflict(f"the pod's UID is {uid_of(pod)}, not {metadata['uid']}")
        version = pod["metadata"]["resourceVersion"]
        if metadata.get("resourceVersion") not in (None, version):
            raise Conflict(f"the pod is at version {version}, not {metadata['resourceVersion']}")
        if node_of(pod) is not None:
            raise Conflict(f"pod {metadata['name']} is already assigned to node {node_of(pod)}")
        if (pod.get("spec") or {}).get("schedulingGates"):
            raise Conflict(f"pod {metadata['name']} has scheduling gates")

    def _store(self, pod: Pod) -> None:
        self._put(self._versioned(pod))
        for watcher in self._watchers:
            watcher.pod(pod)

    def _store_config_map(self, config_map: Mapping[str, Any]) -> ConfigMap:
        stored = copy.deepcopy(dict(config_map))
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self._config_maps[namespaced_name(stored)] = stored
        for watcher in self._watchers:
            watcher.config_map(stored)
        return copy.deepcopy(stored)

    def _put(self, pod: Pod) -> None:
        key = namespaced_name(pod)
        self._pods[key] = pod
        self._uids.add(uid_of(pod))
        node = node_of(pod)
        if node is not None:
            self._on_node.setdefault(node, set()).add(key)

    def _versioned(self, pod: Pod) -> Pod:
        pod["metadata"]["resourceVersion"] = str(next(self._versions))
        return pod

    def _start_reservation(self, pod: Pod) -> None:
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        node = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
        found = self._read.get(node)
        if found is None or found.inventory.memory_mib is None:
            raise Refused(f"node {node} has no GPU that a reservation pod could hold")
        if self._held(node, found.inventory.whole_resource or "") >= found.inventory.whole_gpus:
            return  # As kube-scheduler would leave it: pending.
        pod["spec"]["nodeName"] = node
        pod["status"] = {"phase": "Running"}
        pod["metadata"]["annotations"] = {
            names.DEVICE: self._free_device(node),
            names.DEVICE_MEMORY_MIB: str(found.inventory.memory_mib),
            **({names.BOOT_ID: found.boot_id} if found.boot_id else {}),
        }

    def _held(self, node: str, resource: str) -> int:
        pods = (self._pods[key] for key in self._on_node.get(node, ()))
        return sum(requested(pod).get(resource, 0) for pod in pods if not has_ended(pod))

    def _free_device(self, node: str) -> str:
        held: set[str] = set()
        for key in self._on_node.get(node, ()):
            if not has_ended(self._pods[key]):
                annotations = annotations_of(self._pods[key])
                held.add(str(annotations.get(names.DEVICE)))
                held |= set(str(annotations.get(names.VISIBLE_DEVICES)).split(","))
        devices = (f"GPU-{uuid.uuid5(_DEVICES, f'{node}/{index}')}" for index in count())
        return next(device for device in devices if device not in held)


def refusal(pod: Mapping[str, Any]) -> str | None:
    """Why a user may not create that pod, in one sentence; None if he may."""
    request = GpuRequest.from_pod(pod)
    if isinstance(request, InvalidRequest):
        return request.sentence
    forged = sorted(key for key in annotations_of(pod) if _is_ours(key))
    if forged:
        return f"annotation {forged[0]} is written by gpu-extender alone"
    if is_in_reservations(pod):
        return f"namespace {names.RESERVATION_NAMESPACE} takes no pods but gpu-extender's own"
    if request.share is not None and node_of(pod) is not None:
        return f"spec.nodeName is {node_of(pod)}: a pod that asks for a share must be placed by gpu-extender"
    return None


def _merge(target: dict[str, Any], patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = value


def _is_ours(annotation: str) -> bool:
    devices = annotation.startswith(names.CONTAINER_PREFIX) and annotation.endswith(names.DEVICES_SUFFIX)
    return devices or annotation.startswith(names.PREFIX)


def _scheduled(pod: Pod) -> Sequence[Mapping[str, str]]:
    others = [c for c in (pod.get("status") or {}).get("conditions") or () if c.get("type") != "PodScheduled"]
    return [*others, {"type": "PodScheduled", "status": "True"}]
