"""Who an object is: defaults for what a hand-written file leaves out, and no two of the same name or UID."""

import uuid
from typing import Any, Final

from extender.core.errors import InputError
from extender.core.requests.quote import quote
from extender.snapshot.objects import Entry

_UIDS: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "gpu-extender.io")
_CLUSTER_WIDE: Final = ("Node", "ResourceSlice")


def complete(entry: Entry) -> None:
    """Give a checked object a ``spec``, and the namespace ``default`` where it needs one, as kubectl does."""
    value = entry.value
    if value.get("spec") is None:
        value["spec"] = {}
    if entry.kind not in _CLUSTER_WIDE and value["metadata"].get("namespace") is None:
        value["metadata"]["namespace"] = "default"


def ensure_uid(entry: Entry) -> None:
    """Give a completed object a UID if it has none: the same for the same kind and name, in every run."""
    metadata = entry.value["metadata"]
    metadata["uid"] = metadata.get("uid") or str(uuid.uuid5(_UIDS, "/".join(_name(entry))))


class Seen:
    """Names and UIDs of the objects so far."""

    def __init__(self) -> None:
        #: (metadata field, kind, value) → the place of the object.
        self._places: dict[tuple[str, str, str], str] = {}

    def add(self, entry: Entry) -> None:
        """Raises ``InputError``, which names the other's place, where name or UID are taken."""
        metadata: dict[str, Any] = entry.value["metadata"]
        for field, identity in (("name", "/".join(_name(entry))), ("uid", metadata["uid"])):
            key = (field, entry.kind, identity)
            if key in self._places:
                raise InputError(f"metadata.{field} is {quote(metadata[field])}, as in {self._places[key]}")
            self._places[key] = entry.place


def _name(entry: Entry) -> tuple[str, ...]:
    metadata = entry.value["metadata"]
    if entry.kind in _CLUSTER_WIDE:
        return entry.kind, metadata["name"]
    return entry.kind, metadata["namespace"], metadata["name"]
