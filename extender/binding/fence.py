"""The fence: a write to an unbound pod after which no Binding that was sent before can land.

A Binding of ours carries the resourceVersion that its sender read; the fence moves it. A read never proves that a
Binding failed: it may land after any read. The fence needs a new value each time, for a patch that changes nothing
does not move the version.
"""

from collections.abc import Callable, Iterable
from itertools import count

from extender.binding.api import KubeApi, Pod
from extender.core import names
from extender.core.errors import NotFound

#: Namespace, name and UID of every pod that asks for a share and is not bound, as far as anybody knows.
Unbound = Callable[[], Iterable[tuple[str, str, str]]]


class Fence:
    """Fences of one process."""

    def __init__(self, api: KubeApi, process: str, unbound: Unbound) -> None:
        self._api = api
        self._process = process
        self._unbound = unbound
        self._values = count(1)

    async def pod(self, namespace: str, name: str, uid: str) -> Pod:
        """The pod right after the fence: bound, and that is the outcome; or unbound, and every earlier Binding is dead.

        Raises NotFound if the pod is gone, another ApiError if the fence was refused or nobody knows.
        """
        value = f"{self._process}-{next(self._values)}"
        patch = {"metadata": {"uid": uid, "annotations": {names.FENCE: value}}}
        return await self._api.patch_pod(namespace, name, patch)

    async def all_unbound_shares(self) -> None:
        """Fence every unbound pod that asks for a share. Raises ApiError unless each is fenced or gone."""
        for namespace, name, uid in list(self._unbound()):
            try:
                await self.pod(namespace, name, uid)
            except NotFound:
                continue
