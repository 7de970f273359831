"""The node record: who holds what on a node's shared GPUs, as the API keeps it.

One ConfigMap per node, changed only by PUT with resourceVersion, so that any number of extenders can bind at once::

    v: 1
    gpus: {<id>: {reservation: <uid>, device: GPU-…, mib: 81559, state: open | closing | lost,
                  shares: {<pod uid>: {pod: ns/name, mib: 4096, try: <process>-<n>, mode: sm-sharing, grace: 60}}}}

Each PUT keeps: Σ shares ≤ mib, a device occurs once, a closing GPU gains nothing. Fields that we do not know are kept.
A record that we cannot read takes no share and is never rewritten.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from extender.core import names
from extender.core.errors import InputError
from extender.core.values import USUAL_GRACE, PodOnNode, ShareOnGpu

VERSION: Final = 1
#: The ConfigMap's keys.
RECORD_KEY: Final = "record"
NODE_KEY: Final = "node"

OPEN: Final = "open"
CLOSING: Final = "closing"
LOST: Final = "lost"
_STATES: Final = (OPEN, CLOSING, LOST)

ELSEWHERE: Final = "the device stands in the record under another reservation pod"

Json = dict[str, Any]


class UnreadableRecord(InputError):
    """The record is not what we write; the node gives out no device until somebody has looked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One pod's share of one GPU, as it stands in the record or is to stand there."""

    gpu_id: str
    pod_uid: str
    pod: str
    mib: int
    attempt: str
    compute_mode: str = names.TIME_SLICING
    #: Seconds that the pod's processes may outlive its object.
    grace: int = USUAL_GRACE

    @classmethod
    def of(cls, pod: PodOnNode, share: ShareOnGpu, attempt: str, grace: int) -> "Entry":
        """That share of a pod's, by that try."""
        name = f"{pod.namespace}/{pod.name}"
        return cls(share.gpu_id, pod.uid, name, share.mib, attempt, pod.compute_mode, grace)


@dataclass(frozen=True, slots=True)
class Opened:
    """A GPU as its reservation pod reported it: what a record needs to take it in."""

    gpu_id: str
    reservation: str
    device: str
    mib: int


def record_name(node: str) -> str:
    """The ConfigMap of a node. A hash, for a node's name may be as long as an object's may be."""
    return "node-" + blake2b(node.encode(), digest_size=10).hexdigest()


class NodeRecord:
    """One version of a record; every change is a new one."""

    def __init__(self, content: Json) -> None:
        self._content = content

    @classmethod
    def empty(cls) -> "NodeRecord":
        """The record of a node without shared GPUs."""
        return cls({"v": VERSION, "gpus": {}})

    @classmethod
    def parse(cls, text: str) -> "NodeRecord":
        """Read what ``dump`` wrote. Raises UnreadableRecord."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UnreadableRecord(f"the record is no JSON: {error}") from error
        _check(content)
        return cls(content)

    def dump(self) -> str:
        """Text for the ConfigMap; the same content is the same text."""
        return json.dumps(self._content, sort_keys=True, separators=(",", ":"))

    # --- reading ------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Every share."""
        for gpu_id, gpu in self._content["gpus"].items():
            for pod_uid, share in gpu["shares"].items():
                mode, grace = share.get("mode", names.TIME_SLICING), share.get("grace", USUAL_GRACE)
                yield Entry(gpu_id, pod_uid, share["pod"], share["mib"], share["try"], mode, grace)

    def of(self, pod_uid: str) -> tuple[Entry, ...]:
        """The pod's shares."""
        return tuple(entry for entry in self.entries() if entry.pod_uid == pod_uid)

    def opened(self) -> Iterator[tuple[Opened, str]]:
        """Every GPU, with its state."""
        for gpu_id, gpu in self._content["gpus"].items():
            yield Opened(gpu_id, gpu["reservation"], gpu["device"], gpu["mib"]), gpu["state"]

    def state(self, gpu_id: str) -> str | None:
        """The GPU's state, or None if it is not in the record."""
        gpu = self._content["gpus"].get(gpu_id)
        return None if gpu is None else str(gpu["state"])

    def entering(self, before: "NodeRecord") -> Iterator[Opened]:
        """The open GPUs that were not in that version."""
        known = {opened.gpu_id for opened, _ in before.opened()}
        return (opened for opened, state in self.opened() if state == OPEN and opened.gpu_id not in known)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeRecord) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self.dump())

    # --- changing: each returns a new record ----------------------------------------------------------------

    def without(self, dead: Iterable[tuple[str, str]]) -> "NodeRecord":
        """Leave out the entries of these (pod UID, try)."""
        gone = set(dead)
        content = self._copy()
        for gpu in content["gpus"].values():
            gpu["shares"] = {uid: share for uid, share in gpu["shares"].items() if (uid, share["try"]) not in gone}
        return NodeRecord(content)

    def closing(self, opened: Opened, *, holds: bool = True) -> "NodeRecord | str":
        """The GPU takes no share from now on, whether or not it stood here; or why it must stay open.

        ``holds``: whether the reservation pod still keeps the device from others. One that does not may go although
        the device has another place here by now; one that does may be what the shares at that place wait for.
        """
        content = self._copy()
        if any(gpu["device"] == opened.device for id_, gpu in content["gpus"].items() if id_ != opened.gpu_id):
            return ELSEWHERE if holds else self
        gpu = content["gpus"].setdefault(opened.gpu_id, _fresh(opened))
        if gpu["shares"]:
            return "shares are on the GPU"
        gpu["state"] = CLOSING
        return NodeRecord(content)

    def losing(self, gpu_id: str) -> "NodeRecord | str":
        """No reservation pod holds the GPU's device any more, and shares run on it."""
        content = self._copy()
        gpu = content["gpus"].get(gpu_id)
        if gpu is None:
            return "the shared GPU has left the record"
        if not gpu["shares"]:
            return "no share is on the GPU"
        gpu["state"] = LOST
        return NodeRecord(content)

    def without_gpu(self, gpu_id: str) -> "NodeRecord | str":
        """The id leaves the record: its reservation pod is gone; or why it must stay."""
        content = self._copy()
        gpu = content["gpus"].pop(gpu_id, None)
        if gpu is not None and gpu["shares"]:
            return "shares are on the GPU"
        return NodeRecord(content)

    def without_closed(self, is_gone: Callable[[str], bool]) -> "NodeRecord":
        """Leave out the closing GPUs whose reservation pods are gone."""
        closed = [opened.gpu_id for opened, state in self.opened() if state == CLOSING and is_gone(opened.gpu_id)]
        gpus = {gpu_id: gpu for gpu_id, gpu in self._content["gpus"].items() if gpu_id not in closed or gpu["shares"]}
        return NodeRecord({**self._content, "gpus": gpus})

    def repaired(self, by: Opened) -> "NodeRecord | str":
        """A reservation pod reports a lost device: it takes the place of the one that held it, shares and all.

        It may have fewer MiB than the shares on it (after a change of ECC mode): then it takes no other.
        """
        content = self._copy()
        lost = [id_ for id_, gpu in content["gpus"].items() if gpu["state"] == LOST and gpu["device"] == by.device]
        if not lost or by.gpu_id in content["gpus"].keys() - lost:
            return "the device is not lost"
        gpu = content["gpus"].pop(lost[0])
        gpu |= {"reservation": by.reservation, "device": by.device, "mib": by.mib, "state": OPEN}
        content["gpus"][by.gpu_id] = gpu
        return NodeRecord(content)

    def with_entries(
        self, entries: Sequence[Entry], opened: Mapping[str, Opened], missing: Mapping[str, int]
    ) -> "NodeRecord | str":
        """Take in all entries of one pod, or say why not: data, not an exception.

        ``opened``: what is known of GPUs that the record may not have yet. ``missing``: MiB per device that bound pods
        hold without standing in the record. The pod's older entries are replaced.
        """
        [uid] = {entry.pod_uid for entry in entries}
        content = self._copy()
        for gpu in content["gpus"].values():
            gpu["shares"].pop(uid, None)
        for entry in entries:
            refusal = _take(content["gpus"], entry, opened.get(entry.gpu_id), missing)
            if refusal is not None:
                return refusal
        return NodeRecord(content)

    def _copy(self) -> Json:
        """The content, to be changed; a share's own fields are in every copy the same object: nobody changes them."""
        gpus = {gpu_id: {**gpu, "shares": dict(gpu["shares"])} for gpu_id, gpu in self._content["gpus"].items()}
        return {**self._content, "gpus": gpus}


def _take(gpus: Json, entry: Entry, opened: Opened | None, missing: Mapping[str, int]) -> str | None:
    gpu = gpus.get(entry.gpu_id)
    if gpu is None:
        if opened is None:
            return "the shared GPU has left the record"
        if any(other["device"] == opened.device for other in gpus.values()):
            return ELSEWHERE
        gpu = gpus[entry.gpu_id] = _fresh(opened)
    elif opened is not None and (opened.reservation, opened.device) != (gpu["reservation"], gpu["device"]):
        return "the shared GPU stands in the record with another device"
    if gpu["state"] != OPEN:
        return f"the shared GPU is {gpu['state']}"
    if any(share.get("mode", names.TIME_SLICING) != entry.compute_mode for share in gpu["shares"].values()):
        return "the shared GPU runs pods of another compute mode"
    used = sum(share["mib"] for share in gpu["shares"].values()) + missing.get(gpu["device"], 0)
    if used + entry.mib > gpu["mib"]:
        return "the shared GPU no longer has room"
    share = {"pod": entry.pod, "mib": entry.mib, "try": entry.attempt}
    if entry.compute_mode != names.TIME_SLICING:
        share["mode"] = entry.compute_mode
    if entry.grace != USUAL_GRACE:
        share["grace"] = entry.grace
    gpu["shares"][entry.pod_uid] = share
    return None


def _fresh(opened: Opened) -> Json:
    return {
        "reservation": opened.reservation,
        "device": opened.device,
        "mib": opened.mib,
        "state": OPEN,
        "shares": {},
    }


def _check(content: object) -> None:
    """Raises UnreadableRecord unless the content has the shape that is drawn above."""
    if not isinstance(content, dict) or content.get("v") != VERSION:
        raise UnreadableRecord(f"the record is not of version {VERSION}")
    gpus = content.get("gpus")
    if not isinstance(gpus, dict):
        raise UnreadableRecord("gpus must be an object")
    for gpu_id, gpu in gpus.items():
        _check_gpu(f"gpus.{gpu_id}", gpu)
    devices = [gpu["device"] for gpu in gpus.values()]
    if len(set(devices)) != len(devices):
        raise UnreadableRecord("a device occurs twice")


def _check_gpu(where: str, gpu: object) -> None:
    if not isinstance(gpu, dict):
        raise UnreadableRecord(f"{where} must be an object")
    for key in ("reservation", "device"):
        if not isinstance(gpu.get(key), str) or not gpu[key]:
            raise UnreadableRecord(f"{where}.{key} must be text")
    if not _is_amount(gpu.get("mib")):
        raise UnreadableRecord(f"{where}.mib must be a positive integer")
    if gpu.get("state") not in _STATES:
        raise UnreadableRecord(f"{where}.state must be one of {', '.join(_STATES)}")
    shares = gpu.get("shares")
    if not isinstance(shares, dict):
        raise UnreadableRecord(f"{where}.shares must be an object")
    for uid, share in shares.items():
        _check_share(f"{where}.shares.{uid}", share)


def _check_share(where: str, share: object) -> None:
    if not isinstance(share, dict):
        raise UnreadableRecord(f"{where} must be an object")
    for key in ("pod", "try"):
        if not isinstance(share.get(key), str):
            raise UnreadableRecord(f"{where}.{key} must be text")
    if not _is_amount(share.get("mib")):
        raise UnreadableRecord(f"{where}.mib must be a positive integer")
    if share.get("mode", names.TIME_SLICING) not in names.COMPUTE_MODES:
        raise UnreadableRecord(f"{where}.mode is unknown")
    grace = share.get("grace", USUAL_GRACE)
    if not isinstance(grace, int) or isinstance(grace, bool) or grace < 0:
        raise UnreadableRecord(f"{where}.grace must be an integer of at least 0")


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
