"""The fence: a write to an unbound pod after which no Binding that was sent before can land.

A Binding of ours carries the resourceVersion that its sender read; the fence moves it. A read never proves that a
Binding failed: it may land after any read. The fence needs a new value each time, for a patch that changes nothing
does not move the version.
"""

from contextlib import suppress
from itertools import count

from extender.binding.api import KubeApi, Pod
from extender.core import names
from extender.core.errors import ApiError, NotFound
from extender.core.podreader import uid_of, unbound_shares


class Fence:
    """Fences of one process."""

    def __init__(self, api: KubeApi, process: str) -> None:
        self._api = api
        self._process = process
        self._values = count(1)

    async def pod(self, namespace: str, name: str, uid: str) -> Pod:
        """The pod right after the fence: bound, and that is the outcome; or unbound, and every earlier Binding is dead.

        Raises NotFound if the pod is gone, another ApiError if the fence was refused or nobody knows.
        """
        value = f"{self._process}-{next(self._values)}"
        patch = {"metadata": {"uid": uid, "annotations": {names.FENCE: value}}}
        try:
            return await self._api.patch_pod(namespace, name, patch)
        except NotFound:
            raise
        except ApiError as error:
            if await self.is_gone(namespace, name, uid):
                raise NotFound(f"pod {namespace}/{name} is gone") from error
            raise

    async def is_gone(self, namespace: str, name: str, uid: str) -> bool:
        """Whether the API says that the pod has left. A refused fence alone says nothing: rights, a policy."""
        try:
            pod = await self._api.get_pod(namespace, name)
        except ApiError as error:
            return isinstance(error, NotFound)
        return uid_of(pod) != uid

    async def all_unbound_shares(self) -> None:
        """Fence every unbound pod that asks for a share. Raises ApiError unless each is fenced or gone."""
        for waiting in unbound_shares(await self._api.list_pods("")):
            with suppress(NotFound):
                await self.pod(*waiting)
