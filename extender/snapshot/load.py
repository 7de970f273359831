"""A cluster in a file: what ``kubectl get nodes,pods -A -o yaml`` or ``-o json`` prints.

Every error is an ``InputError`` of one line that names the file, the document and the item in its list (both
counted from 1), the object, the field and its value.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from extender.core.errors import InputError
from extender.core.requests import GpuRequest, InvalidRequest
from extender.core.requests.quote import plain
from extender.snapshot.checks import check
from extender.snapshot.identity import Seen, complete, ensure_uid
from extender.snapshot.objects import Entry, entries, flatten

STANDARD_INPUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Objects in the order of the file, each with a name, a UID and a spec, pods and claims with a namespace.

    What ``snapshot_checks`` looks at is well formed, and names and UIDs occur once per kind. A pod may be bound
    to a node that is not in the file.
    """

    nodes: tuple[dict[str, Any], ...] = ()
    pods: tuple[dict[str, Any], ...] = ()
    resource_slices: tuple[dict[str, Any], ...] = ()
    resource_claims: tuple[dict[str, Any], ...] = ()


def load_snapshot(path: Path) -> Snapshot:
    """Read ``path``, or standard input where it is ``-``. Raises ``InputError``."""
    return parse_snapshot(*_read(path))


def load_pods(path: Path) -> list[dict[str, Any]]:
    """The pods of a file of manifests. Raises ``InputError``, also where there are other objects but no pod."""
    text, source = _read(path)
    found = _parse(text, source)
    pods = [entry.value for entry in found if entry.known and entry.kind == "Pod"]
    if found and not pods:
        raise InputError(f"{source}: {found[0].place}: {found[0].title}: only Pods are read, and there is none")
    return pods


def parse_snapshot(text: str, source: str) -> Snapshot:
    """The objects in ``text``; other kinds are ignored. Raises ``InputError`` that starts with ``source``, also where
    there are other objects only; an empty list is an empty cluster."""
    found = _parse(text, source)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for entry in found:
        if entry.known:
            by_kind.setdefault(entry.kind, []).append(entry.value)
    if found and not by_kind:
        raise InputError(f"{source}: {found[0].place}: {found[0].title}: no Node or Pod is in this file")
    kinds = ("Node", "Pod", "ResourceSlice", "ResourceClaim")
    return Snapshot(*(tuple(by_kind.get(kind, ())) for kind in kinds))


def with_pods(snapshot: Snapshot, pods: Iterable[dict[str, Any]], source: str) -> Snapshot:
    """The snapshot and these pods, from ``load_pods``. Raises ``InputError`` where one of them is there already."""
    added = tuple(pods)
    seen = Seen()
    for pod in snapshot.pods:
        seen.add(Entry("the snapshot, or in a file before", "Pod", True, pod))
    for entry in (Entry(source, "Pod", True, pod) for pod in added):
        try:
            seen.add(entry)
        except InputError as error:
            raise InputError(f"{source}: {entry.title}: {error}") from None
    return replace(snapshot, pods=(*snapshot.pods, *added))


def read_pod(value: object) -> dict[str, Any]:
    """A well-formed pod with a namespace and a spec, from what somebody submits; its UID stays as it came.

    Raises ``InputError``: with the parser's own sentence where the request is refused, because that is the same
    everywhere, else with the field.
    """
    request = GpuRequest.from_pod(value) if isinstance(value, dict) else None
    if isinstance(request, InvalidRequest):
        raise InputError(request.sentence)
    entry = next(flatten("the body", value, "Pod", "v1"), None)
    if entry is None or not entry.known or entry.kind != "Pod":
        raise InputError("the body is not a v1 Pod")
    check(entry.kind, entry.value)
    complete(entry)
    return entry.value


def _read(path: Path) -> tuple[str, str]:
    """Text and name of a file. A byte order mark, as Windows writes it, is dropped."""
    source = "standard input" if path == STANDARD_INPUT else plain(str(path))
    try:
        content = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    except OSError as error:
        raise InputError(f"{source}: {error.strerror or type(error).__name__}") from error
    except ValueError as error:  # a zero byte in the path
        raise InputError(f"{source}: {error}") from error
    try:
        return content.decode("utf-8-sig"), source
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: byte {error.start + 1} is not UTF-8 text") from error


def _parse(text: str, source: str) -> list[Entry]:
    try:
        return list(_checked(text))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _checked(text: str) -> Iterator[Entry]:
    seen = Seen()
    for entry in entries(text):
        if entry.known:
            _admit(entry, seen)
        yield entry


def _admit(entry: Entry, seen: Seen) -> None:
    try:
        check(entry.kind, entry.value)
        complete(entry)
        ensure_uid(entry)
        seen.add(entry)
    except InputError as error:
        raise InputError(f"{entry.place}: {entry.title}: {error}") from None
