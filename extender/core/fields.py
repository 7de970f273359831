"""Reading JSON that nobody has checked: what has not the expected shape reads as absent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]

_LARGEST: Final = 10**18
# Not a number, a name or a state that anything looks for.
_UNREADABLE: Final = "?"


def child(value: object, *path: str) -> Json:
    """The object at the end of ``path``; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def children(value: Json, key: str) -> Sequence[Json]:
    """The objects in the list at ``key``; whatever else stands in it is left out."""
    listed = value.get(key)
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(item for item in listed if isinstance(item, dict))


def text(value: Json, key: str) -> str | None:
    """The text at ``key``; None where there is none, or an empty one."""
    found = value.get(key)
    return found if isinstance(found, str) and found else None


def strings(value: Json) -> dict[str, str]:
    """Labels as text.

    Hand-written YAML forgets quotes: ``replicas: 4`` must not read as "no replicas".
    """
    return {key: _as_text(found) for key, found in value.items() if isinstance(key, str) and found is not None}


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and abs(value) < _LARGEST else _UNREADABLE
