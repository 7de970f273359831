"""What binding needs of a cluster. The embedded cluster and the real one both are a ``KubeApi``."""

from collections.abc import Mapping
from typing import Any, Protocol

Pod = dict[str, Any]
ConfigMap = dict[str, Any]


class KubeApi(Protocol):
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else; each ends within a few seconds."""

    async def get_pod(self, namespace: str, name: str) -> Pod:
        """The pod as it stands now, never from a cache. Raises NotFound."""

    async def list_pods(self, node: str) -> list[Pod]:
        """Every pod that is bound to the node, or to none where ``node`` is empty; as they stand now, from no cache."""

    async def create_pod(self, pod: Mapping[str, Any]) -> Pod:
        """Store a new pod and return it. Raises Conflict if namespace and name are taken."""

    async def patch_pod(self, namespace: str, name: str, patch: Mapping[str, Any]) -> Pod:
        """Merge-patch a pod and return it. Raises NotFound, Refused if a UID in the patch is another's."""

    async def delete_pod(
        self, namespace: str, name: str, uid: str, grace_seconds: int | None = None, version: str | None = None
    ) -> None:
        """Delete exactly that pod. Raises NotFound, or Conflict if the UID (or the resourceVersion) is another."""

    async def bind_pod(self, binding: Mapping[str, Any]) -> None:
        """POST a v1 Binding. Raises NotFound, Conflict, Refused, Unavailable."""

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Merge-patch a node and return it. Raises NotFound, Refused if a UID in the patch is another's."""

    async def get_config_map(self, namespace: str, name: str) -> ConfigMap:
        """The ConfigMap as it stands now. Raises NotFound."""

    async def create_config_map(self, config_map: Mapping[str, Any]) -> ConfigMap:
        """Store a new ConfigMap and return it. Raises Conflict if it exists."""

    async def put_config_map(self, config_map: Mapping[str, Any]) -> ConfigMap:
        """Replace a ConfigMap at its resourceVersion. Raises Conflict if it has moved, NotFound."""
