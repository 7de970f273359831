"""What binding needs of a cluster. The embedded cluster and the real one both are a ``KubeApi``."""

from collections.abc import Mapping
from typing import Any, Protocol

Pod = dict[str, Any]


class KubeApi(Protocol):
    """Every call raises ``errors.ApiError`` or one of its kinds, and nothing else."""

    async def get_pod(self, namespace: str, name: str) -> Pod:
        """The pod as it stands now, never from a cache. Raises NotFound."""

    async def create_pod(self, pod: Mapping[str, Any]) -> Pod:
        """Store a new pod and return it. Raises Conflict if namespace and name are taken."""

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """Delete exactly that pod. Raises NotFound, or Conflict if the UID is another."""

    async def bind_pod(self, binding: Mapping[str, Any]) -> None:
        """POST a v1 Binding. Raises NotFound, Conflict, Refused, Unavailable."""
