"""From the text of a snapshot to its objects, each with the place where it stands."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from extender.core.errors import InputError
from extender.core.requests.quote import plain, quote
from extender.snapshot.json import json_documents, looks_like_json
from extender.yaml_reader import yaml_documents

#: Kind → its API group, for others have kinds of the same name: Longhorn, for one, a Node.
_GROUPS: Final = {
    "Node": "",
    "Pod": "",
    "ResourceSlice": "resource.k8s.io",
    "ResourceClaim": "resource.k8s.io",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of the file."""

    #: Such as ``document 2, item 5``, both counted from 1.
    place: str
    kind: str
    #: Whether a snapshot cares for this kind.
    known: bool
    value: dict[str, Any]

    @property
    def title(self) -> str:
        """Kind, namespace and name, as far as they can be read."""
        metadata = self.value.get("metadata")
        parts = [metadata.get(key) for key in ("namespace", "name")] if isinstance(metadata, dict) else []
        name = "/".join(plain(part) for part in parts if isinstance(part, str))
        return f"{self.kind} {name}" if name else self.kind


def entries(text: str) -> Iterator[Entry]:
    """Every object of every document and list, in order. Raises ``InputError`` that starts with the place."""
    empty = True
    for number, document in _numbered(text):
        if document is not None:
            empty = False
            yield from flatten(f"document {number}", document)
    if empty:
        raise InputError("no object is in this file")


def _numbered(text: str) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        for document in json_documents(text) if looks_like_json(text) else yaml_documents(text):
            number += 1
            yield number, document
    except InputError as error:
        raise InputError(f"document {number + 1}: {error}") from None


def flatten(place: str, value: Any, kind: str | None = None, version: str | None = None) -> Iterator[Entry]:
    """The objects in ``value``; ``kind`` and ``version`` are what its list says of all its items."""
    if not isinstance(value, dict):
        raise InputError(f"{place} is {quote(value)} but must be an object")
    kind, version = _text(place, value, "kind", kind), _text(place, value, "apiVersion", version)
    if kind is None:
        raise InputError(f"{place}: kind is missing")
    if kind.endswith("List"):
        yield from _items(place, value, kind, version)
        return
    known = kind in _GROUPS and (version is None or version.rpartition("/")[0] == _GROUPS[kind])
    yield Entry(place, plain(kind), known, value)


def _items(place: str, value: dict[str, Any], kind: str, version: str | None) -> Iterator[Entry]:
    items = value.get("items")
    if items is None:  # Go writes an empty list so
        return
    if not isinstance(items, list):
        raise InputError(f"{place}: {plain(kind)}: items is {quote(items)} but must be a list")
    # A List says nothing about its items. A PodList does, and the API server then leaves it out of them.
    implied = (kind.removesuffix("List"), version) if kind != "List" else (None, None)
    for number, item in enumerate(items, 1):
        yield from flatten(f"{place}, item {number}", item, *implied)


def _text(place: str, value: dict[str, Any], key: str, implied: str | None) -> str | None:
    text = value.get(key)
    if text is None:
        if implied is not None:
            value[key] = implied
        return implied
    if not isinstance(text, str):
        raise InputError(f"{place}: {key} is {quote(text)} but must be text")
    return text
